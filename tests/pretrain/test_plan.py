"""A plan is arithmetic on measured updates, and the published configurations give the published figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sslbench.cli import main
from sslbench.pretrain import plan
from sslbench.pretrain.plan import Measured
from sslbench.report import store
from sslbench.report.view import summarise

REPO = Path(__file__).resolve().parents[2]
CONF = REPO / "egs" / "librispeech" / "ssl1" / "conf" / "pretrain_zipformer_base.yaml"
MEASURED = Measured("gpu", "bf16", 600.0, 0.5, 2**30, 94_561_917, 0.3, "a counter")


def test_k2ssl_s_command_is_351_epochs() -> None:
    made = plan.predict(plan.read_config(CONF), MEASURED, gpus=8, corpus_hours=960.0)
    assert made.epochs == pytest.approx(351, abs=1)
    assert made.gpu_hours == pytest.approx(253_000 * 8 * 0.5 / 3600)
    assert made.wall_hours == pytest.approx(made.gpu_hours / 8)
    assert made.kwh == pytest.approx(0.3 * made.audio_hours * 3600 / 3.6e6)


def test_more_devices_do_more_audio_not_more_updates() -> None:
    config = replace(plan.read_config(CONF), accum=2)
    one, two = (plan.predict(config, MEASURED, gpus, None) for gpus in (1, 2))
    assert one.steps == two.steps
    assert two.audio_hours == pytest.approx(2 * one.audio_hours)
    assert two.wall_hours == pytest.approx(one.wall_hours)
    assert one.epochs is None


def test_a_tiny_run_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "tiny.yaml"
    conf.write_text("upstream: zipformer_tiny\nmax_steps: 100\nmax_duration_s: 20\n")
    assert not main(["plan", str(conf), "--batch_s", "4", "--updates", "2", "--json", "--hours", "1"])
    found = json.loads(capsys.readouterr().out)
    assert found["measured"]["batch_s"] == 4.0
    assert found["measured"]["audio_s_per_s"] > 1
    assert found["plan"]["audio_hours"] == pytest.approx(100 * 20 / 3600)
    assert not main(["plan", str(conf), "--batch_s", "4", "--updates", "1"])
    assert "HuBERT Base, both iterations" in capsys.readouterr().out  # the published figures stand beside


def test_a_prediction_is_a_row_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "measure", lambda *_: MEASURED)
    assert main(["plan", str(CONF), "--gpus", "8", "--results", str(tmp_path), "--system", "z"]) == 0
    summary = summarise(store.load_all(tmp_path))
    found = {c.label: summary.systems[0].metric(c).value for c in summary.columns if not c.quality}
    assert found["Predicted pretraining time (device-hours)"] == pytest.approx(253_000 * 8 * 0.5 / 3600)
    assert found["Predicted pretraining energy (kWh)"] == pytest.approx(0.3 * 253_000 * 8 * 600 / 3.6e6)


def test_wrong_settings_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "wrong.yaml"
    conf.write_text("upstream: zipformer_tiny\nlearning_rate: 1\n")
    assert main(["plan", str(conf)]) == 2
    assert "learning_rate" in capsys.readouterr().err
    assert main(["plan", str(conf), "--gpus", "0"]) == 2
    assert main(["plan", str(conf), "--batch_s", "nan"]) == 2
