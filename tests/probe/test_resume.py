"""A grid whose training is interrupted: the rest is trained, and not one bit differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from probe_fakes import Spectral, make_corpus

from sslbench.probe import resume
from sslbench.probe.grid import FrameGrid, Grid
from sslbench.probe.pooled import PooledGrid
from sslbench.probe.rundir import RunDir
from sslbench.probe.runner import Named, ProbeSettings, run_task
from sslbench.probe.task import ProbeTask, load_task
from sslbench.probe.train import Point


def interrupted(monkeypatch: pytest.MonkeyPatch, kind: type[Grid], after: int) -> list[int]:
    """Count updates; the one after `after` ends the run."""
    counted: list[int] = []
    update = kind.update

    def dying(self, numbers, which):  # type: ignore[no-untyped-def]
        counted.append(len(counted))
        if len(counted) == after + 1:
            raise KeyboardInterrupt
        return update(self, numbers, which)

    monkeypatch.setattr(kind, "update", dying)
    return counted


def files(folder: Path) -> dict[str, bytes]:
    kept = ("probe.safetensors", "curve.jsonl", "dev.jsonl", "test.jsonl", "layer_weights.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.name in kept}


@pytest.mark.parametrize(
    ("name", "kind"), [("pr", FrameGrid), ("superb_asr", FrameGrid), ("sid", PooledGrid)]
)
def test_an_interrupted_grid_goes_on_bit_for_bit(
    name: str, kind: type[Grid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus(tmp_path / "corpus", speakers=3, per_session=2)

    def task() -> ProbeTask:
        made = load_task(name, "smoke")
        if name == "superb_asr":
            made.dim = 8  # its head has dropout
        made.protocol = replace(
            made.protocol,
            steps=12,
            eval_every=5,
            batch_clips=4,
            lr_grid=[1e-2, 1e-3],
            early_stop=name == "sid",
        )
        return made

    def run(where: str) -> None:
        how = ProbeSettings(corpus, tmp_path / where, tmp_path / "rows", seed=1)
        run_task(task(), Spectral, Named("fake", "fake"), how)

    run("whole")
    monkeypatch.setattr(resume, "SAVE_EVERY_S", 0.0)
    with monkeypatch.context() as patch:
        interrupted(patch, kind, after=7 + 2)  # two updates are trials of speed
        with pytest.raises(KeyboardInterrupt):
            run("killed")
    saved = tmp_path / "killed" / name / "training.pt"
    stored = torch.load(saved, weights_only=True)
    assert stored["progress"]["step"] == 7
    torch.manual_seed(99)  # global random numbers do not matter
    with monkeypatch.context() as patch:
        counted = interrupted(patch, kind, after=1000)
        run("killed")
        assert len(counted) == 5 + 2
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert len(files(tmp_path / "whole")) == 10
    assert not saved.exists()

    # control: another state to go on from gives another result
    with monkeypatch.context() as patch:
        interrupted(patch, kind, after=7 + 2)
        with pytest.raises(KeyboardInterrupt):
            run("changed")
    saved = tmp_path / "changed" / name / "training.pt"
    stored["grid"]["optimizers" if kind is FrameGrid else "optimizer"] = _emptied(stored["grid"])
    torch.save(stored, saved)
    run("changed")
    assert files(tmp_path / "changed") != files(tmp_path / "whole")


@pytest.mark.parametrize("early_stop", [False, True])
def test_a_kill_between_two_results_costs_no_training(
    early_stop: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second rate goes on from what was saved or, where rates depend on each other, trains with all."""
    corpus = make_corpus(tmp_path / "corpus", speakers=3, per_session=2)

    def run(where: str) -> None:
        task = load_task("sid", "smoke")
        protocol = replace(task.protocol, steps=40, eval_every=5, batch_clips=4, lr_grid=[1e-2, 1e-9])
        task.protocol = replace(protocol, early_stop=early_stop)
        how = ProbeSettings(corpus, tmp_path / where, tmp_path / "rows", seed=1)
        run_task(task, Spectral, Named("fake", "fake"), how)

    run("whole")
    finish = RunDir.finish

    def dying(self: RunDir, point: Point, fold: str, cost: dict[str, float]) -> None:
        if point.value == 1e-9:
            raise KeyboardInterrupt
        finish(self, point, fold, cost)

    monkeypatch.setattr(resume, "SAVE_EVERY_S", 300.0 if early_stop else 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "finish", dying)
        with pytest.raises(KeyboardInterrupt):
            run("killed")
    first = tmp_path / "killed" / "sid" / "lr-0.01" / "done.json"
    written = first.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        counted = interrupted(patch, PooledGrid, after=1000)
        run("killed")
    assert len(counted) == (40 if early_stop else 0) + 2
    assert first.stat().st_mtime_ns == written
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def _emptied(grid: dict) -> object:  # type: ignore[type-arg]
    """The optimizers without their moments."""
    if "optimizer" in grid:
        return {**grid["optimizer"], "state": {}}
    return [{**state, "state": {}} for state in grid["optimizers"]]
