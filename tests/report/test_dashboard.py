"""One line per system says what is done, running, stopped, and how long it will take."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import fake_benchmark as fake
import pytest
import yaml

from sslbench import config as configs
from sslbench.cli import main
from sslbench.finetune.config import FinetuneConfig
from sslbench.report import store
from sslbench.report.dashboard import SILENT_S, dashboard

NOW = 1_800_000_000.0


def write(path: Path, text: str, age_s: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (NOW - age_s, NOW - age_s))


def training(run: Path, step: int, age_s: float, done: bool = False) -> None:
    write(run / "config.yaml", "max_steps: 800\nupstream: zipformer_tiny\n", age_s)
    rows = [{"step": step, "loss": 4.0, "step_s": 0.5}, {"step": step, "dev_loss": 4.1}]
    write(run / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9', age_s)
    if done:
        write(run / "DONE", "800\n", age_s)


def probe(run: Path, points: int, age_s: float) -> None:
    write(run / "run.json", json.dumps({"facts": {"lr_grid": [0.1, 0.01], "folds": ["a", "b"]}}), age_s)
    for number in range(points):
        write(run / "a" / f"lr-{number}" / "done.json", "{}", age_s)


def test_done_running_and_stopped_are_told_apart(tmp_path: Path) -> None:
    rows = [store.make_row(**fake.fields("old", "asr")), store.make_row(**fake.fields("busy", "pr"))]
    training(tmp_path / "busy" / "pretrain", 600, age_s=30)
    training(tmp_path / "busy" / "asr", 800, age_s=30, done=True)
    probe(tmp_path / "busy" / "superb" / "sid", 3, age_s=30)
    probe(tmp_path / "busy" / "superb" / "er", 4, age_s=30)  # complete
    training(tmp_path / "dead" / "pretrain", 200, age_s=SILENT_S + 1)
    assert dashboard(rows, [tmp_path], NOW) == [
        "busy  done pr | running pretrain 600/800 steps, left 1:40; sid 3/4 grid points",
        "dead  stopped pretrain 200/800 steps",
        "old   done asr",
    ]


def test_a_fine_tuning_is_counted_by_its_own_setting(tmp_path: Path) -> None:
    for rate, step in ((0.01, 20), (0.001, 5)):
        run = tmp_path / "mine" / "asr" / f"lr-{rate:g}"
        training(run, step, age_s=1)
        settings = FinetuneConfig(exp_dir=str(run), lr=rate, steps=40)
        write(run / "config.yaml", yaml.safe_dump(configs.to_dict(settings)), 1)
    assert dashboard([], [tmp_path], NOW) == [
        "mine  running lr-0.001 5/40 steps, left 0:18; lr-0.01 20/40 steps, left 0:10"
    ]


def test_a_single_run_is_its_own_system_and_broken_ones_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path / "mine", 10, age_s=1)
    assert dashboard([], [tmp_path / "mine"], NOW) == ["mine  running mine 10/800 steps, left 6:35"]
    monkeypatch.chdir(tmp_path / "mine")
    assert dashboard([], ["."], NOW) == ["mine  running mine 10/800 steps, left 6:35"]
    write(tmp_path / "mine" / "config.yaml", "max_steps: [", 1)
    write(tmp_path / "other" / "log.jsonl", "", 1)
    assert dashboard([], [tmp_path], NOW) == []


def test_files_that_vanish_while_they_are_counted_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path / "gone" / "pretrain", 10, age_s=1)
    training(tmp_path / "kept" / "pretrain", 10, age_s=1)
    stat = Path.stat

    def vanishing(path: Path, **how: bool) -> os.stat_result:
        if "gone" in path.parts and path.suffix == ".yaml":
            raise FileNotFoundError(path)
        return stat(path, **how)

    monkeypatch.setattr(Path, "is_file", lambda path: path.name != "DONE")
    monkeypatch.setattr(Path, "stat", vanishing)
    assert dashboard([], [tmp_path], NOW) == ["kept  running pretrain 10/800 steps, left 6:35"]


def test_a_run_without_folds_has_one(tmp_path: Path) -> None:
    write(tmp_path / "a" / "sid" / "run.json", json.dumps({"facts": {"lr_grid": [0.1, 0.01]}}), 1)
    assert dashboard([], [tmp_path], NOW) == ["a  running sid 0/2 grid points"]


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf"])
def test_impossible_pauses_are_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "results", "--out", "out", "--watch", seconds]) == 2
    assert "--watch must be above 0 seconds" in capsys.readouterr().err


def test_a_missing_library_ends_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["report", str(tmp_path), "--out", str(tmp_path), "--watch", "1"]) == 2
    assert "pip install 'sslbench[report]'" in capsys.readouterr().err
