"""The verb: JSON keys, rows, absent figures, and what it says about doubtful ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sslbench import registry
from sslbench.cli import main
from sslbench.nn.upstream import LossOutput, PretrainBatch, SSLModel, Upstream
from sslbench.profile import measure, memory
from sslbench.profile.workload import BATCH, SINGLE, training_step, why_no_training
from sslbench.report import store

KEYS = {
    "upstream",
    "params_total",
    "params_trainable",
    "macs_g",
    "macs_buckets_g",
    "rtf",
    "train_audio_s_per_s",
}


class _Settings:
    num_units = 7


class _Encoder(SSLModel):
    """A strided convolution and a classifier."""

    family = "test"

    def __init__(self) -> None:
        super().__init__()
        self.config = _Settings()
        self.conv = nn.Conv1d(1, 16, 320, stride=320)
        self.out = nn.Linear(16, 7)
        self.batch_count = 0.0

    def set_batch_count(self, batch_count: float) -> None:
        self.batch_count = batch_count

    def forward(self, batch: PretrainBatch) -> LossOutput:
        logits = self.out(self.conv(batch.audio[:, None]).transpose(1, 2))  # (B, F, 7)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
        return LossOutput(loss, torch.tensor(batch.labels.numel()))

    def hidden_states(self, audio: torch.Tensor, audio_lens: torch.Tensor) -> list[torch.Tensor]:
        return [self.conv(audio[:, None]).transpose(1, 2)]


class _NoLoss(nn.Module):
    weights = "none"

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        return {"hidden_states": [torch.stack(wavs)[:, ::320, None]]}


@pytest.fixture
def _upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {"encoder": lambda frozen: Upstream(_Encoder(), "random", None, frozen)}
    made["features"] = lambda frozen: _NoLoss()
    monkeypatch.setattr(measure, "build", lambda name, ckpt, frozen: made[name](frozen))


@pytest.mark.usefixtures("_upstreams")
def test_json_has_the_promised_keys_and_closed_form_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "encoder", "features", "--json", "--no_memory", "--budget_s", "0.05"]) == 0
    encoder, features = json.loads(capsys.readouterr().out)
    assert set(encoder) >= KEYS
    assert encoder["upstream"] == "encoder"
    assert set(encoder["macs_buckets_g"]) == {"short", "medium", "long", "longer"}
    assert sum(encoder["macs_buckets_g"].values()) == pytest.approx(encoder["macs_g"])
    assert encoder["params_total"] == encoder["params_trainable"] == 320 * 16 + 16 + 16 * 7 + 7
    assert encoder["params_active"] == 320 * 16 + 16  # features need no classifier
    assert encoder["train_audio_s_per_s"] > 0
    assert features["train_audio_s_per_s"] is None
    assert any("no training speed: features is not a pretraining model" in flag for flag in features["flags"])
    assert features["macs_g"] == 0


@pytest.mark.usefixtures("_upstreams")
def test_rows_are_written_and_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "profile",
        "encoder",
        "--system",
        "mine",
        "--results",
        str(tmp_path),
        "--tier",
        "smoke",
        "--no_memory",
        "--growth",
    ]
    assert main([*words, "--budget_s", "0.05"]) == 0
    assert "mine" in capsys.readouterr().out
    row = store.load(tmp_path / "mine" / "profile.json")
    assert next(iter(row.metrics)) == "macs_g"
    assert (row.system, row.upstream, row.tier, row.weights) == ("mine", "encoder", "smoke", "random")
    assert row.metrics["macs_short_g"].n == 8
    assert row.cost["single_repeats"] >= 3
    fitted = 600 * row.cost["macs_g_per_s"] + 600**2 * row.cost["macs_g_per_s2"]
    assert fitted == pytest.approx(row.cost["macs_at_600s_g"], rel=row.cost["macs_fit_error"] + 1e-9)
    assert row.provenance.torch_threads == torch.get_num_threads()


@pytest.mark.usefixtures("_upstreams")
def test_labels_and_checkpoints_must_fit_the_upstreams(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "encoder", "features", "--system", "one"]) == 2
    assert "2 upstreams but 1 --system; give one for each" in capsys.readouterr().err
    assert main(["profile", "encoder", "encoder"]) == 2
    assert "share a label" in capsys.readouterr().err
    assert main(["profile", "encoder", "--system", "a b", "--results", "never"]) == 2
    assert capsys.readouterr().err.startswith("sslbench: error: --system 'a b'")  # nothing was measured
    assert main(["profile", "encoder", "--budget_s", "nan"]) == 2
    assert "--budget_s must be above 0" in capsys.readouterr().err


def test_options_belong_to_the_upstream_before_them() -> None:
    from sslbench.cli.profile import _subjects, parser
    from sslbench.profile.measure import Subject

    words = [
        *("--upstream", "a", "--ckpt", "x", "--system", "one"),
        *("--upstream", "fbank", "--upstream", "b", "--system", "two"),
    ]
    chosen = parser().parse_args(words)
    expected = [Subject("a", "x", "one"), Subject("fbank", None, "fbank"), Subject("b", None, "two")]
    assert _subjects(chosen.upstreams, chosen.events) == expected
    chosen = parser().parse_args(
        ["a", "b", "--ckpt", "x", "--ckpt", "-", "--system", "one", "--system", "two"]
    )
    assert _subjects(chosen.upstreams, chosen.events) == [Subject("a", "x", "one"), Subject("b", None, "two")]


def test_a_training_step_has_gradients_one_label_per_frame_and_late_schedules() -> None:
    upstream = Upstream(_Encoder(), "random", frozen=False)
    training_step(upstream, BATCH)()
    model: Any = upstream.model
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.batch_count > 0
    assert why_no_training(upstream) is None
    assert why_no_training(_NoLoss()) is not None
    model.config = object()
    assert (why_no_training(upstream) or "").startswith("has a configuration without num_units")
    assert (SINGLE.audio_s, BATCH.audio_s) == (10.0, 20.0)


def _tiny() -> str:
    names = [entry.name for entry in registry.upstreams() if entry.name.endswith("_tiny") and entry.config]
    assert names, "no tiny upstream is registered"
    return names[0]


def test_memory_is_that_of_a_fresh_process() -> None:
    """A large allocation here must not show there; a training step needs more than inference."""
    ballast = torch.ones(1 << 30, dtype=torch.uint8)  # 1 GiB, touched
    found = memory.peak_memory(_tiny(), None, threads=1, train=True)
    del ballast
    assert 50e6 < found["baseline_bytes"] < found["inference_bytes"] < 1.4e9
    assert found["train_bytes"] > found["inference_bytes"]


def test_a_failing_memory_process_says_why() -> None:
    from sslbench.errors import SslbenchError

    with pytest.raises(
        SslbenchError, match=r"memory of no_such_upstream \(inference\) failed: .*no_such_upstream"
    ):
        memory.peak_memory("no_such_upstream", None, threads=1, train=False)


@pytest.mark.slow
def test_fbank_equals_the_superb_challenge_where_its_tool_looks() -> None:
    """0.48 G there (FBANK row), without Fourier transforms, which that tool does not see."""
    pytest.importorskip("s3prl")
    command = [
        sys.executable,
        "-m",
        "sslbench",
        "profile",
        "fbank",
        "--json",
        "--no_memory",
        "--budget_s",
        "0.1",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (found,) = json.loads(done.stdout)
    assert found["params_total"] == 0
    assert found["macs_g"] - found["macs_kinds_g"]["fft"] == pytest.approx(0.48, abs=0.005)
    assert found["unlisted_operators"] == []


@pytest.mark.parametrize(
    ("name", "params", "macs_g"),
    # 1669 G is the SUPERB challenge's HuBERT Base, whose encoder this is; icefall's Zipformer Base does
    # 69.0 GFLOPs on 10 s, which is 775.8 GMACs on the challenge's 224.9 s
    [("hubert_k2ssl_base", 94_759_288, 1669.0), ("zipformer_base", 94_561_917, 775.8)],
)
def test_full_sizes_are_counted_without_computing(
    name: str, params: int, macs_g: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", name, "--no_speed", "--no_memory", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["params_total"] == params
    assert row["macs_counted_on"] == "meta"
    assert row["macs_g"] == pytest.approx(macs_g, rel=0.01)
    assert row["macs_g"] == pytest.approx(sum(row["macs_buckets_g"].values()))
