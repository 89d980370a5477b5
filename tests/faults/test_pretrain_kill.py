"""Pretraining killed at random moments goes on as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sslbench.io import read_jsonl
from sslbench.train import checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent / "pretrain"))
from pretrain_toy import curve, finish, fork_run, make_both, make_settings, weights

KILLS = 4
DEADLINE_S = 60


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_both(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def settings(corpus: Path) -> dict[str, Any]:
    return make_settings(
        corpus, corpus / "whole", max_steps=40, save_every=3, average_every=2, crop="shortest", valid_every=20
    )


@pytest.fixture(scope="module")
def whole(settings: dict[str, Any], corpus: Path) -> Path:
    """The uninterrupted run."""
    assert finish(fork_run(settings, corpus / "whole.log")) == 0
    return corpus / "whole"


def assert_same(exp: Path, whole: Path) -> None:
    assert curve(exp) == curve(whole)
    for name in ("model.safetensors", "average.safetensors"):
        assert weights(exp, 40, name) == weights(whole, 40, name)
    used = [[(r["step"], r["ids"]) for r in read_jsonl(run / "utterances-0.jsonl")] for run in (exp, whole)]
    assert used[0] == used[1]


def wait_until(pid: int, happened: Any) -> bool:
    """Poll without pause, so that short moments are met; False when the child ended first."""
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, "the run never got there"
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
    return True


def steps_logged(exp: Path) -> int:
    try:
        return (exp / "log.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_kills_at_random_moments_change_no_bit(settings: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    rng = random.Random(4)
    exp = tmp_path / "exp"
    mine = {**settings, "exp_dir": str(exp)}
    killed = 0
    for target in sorted(rng.sample(range(2, 38), KILLS)):
        pid = fork_run(mine, tmp_path / "out.log")
        if wait_until(pid, lambda at=target: steps_logged(exp) >= at):
            time.sleep(rng.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
        killed += finish(pid) == -signal.SIGKILL
    assert killed == KILLS, (tmp_path / "out.log").read_text()
    assert finish(fork_run(mine, tmp_path / "out.log")) == 0
    assert_same(exp, whole)


def test_kills_inside_a_checkpoint_write_change_no_bit(
    settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    rng = random.Random(5)
    exp = tmp_path / "exp"
    mine = {**settings, "exp_dir": str(exp)}
    inside = 0
    for _ in range(KILLS):
        done = max([0, *checkpoint.steps_in(exp / "checkpoints")])
        pid = fork_run(mine, tmp_path / "out.log")
        folder = exp / "checkpoints" / f".tmp-step-{done + 3:08d}"
        if wait_until(pid, lambda at=folder: at.is_dir()):
            time.sleep(rng.uniform(0, 0.002))
            os.kill(pid, signal.SIGKILL)
        finish(pid)
        inside += folder.is_dir()
    assert inside >= 1, "no kill met a checkpoint write"
    assert finish(fork_run(mine, tmp_path / "out.log")) == 0
    assert_same(exp, whole)
    assert not list((exp / "checkpoints").glob(".tmp-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_saves_and_says_so(
    settings: dict[str, Any], whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    exp = tmp_path / "exp"
    mine = {**settings, "exp_dir": str(exp), "save_every": 1000, "num_workers": 1}
    pid = fork_run(mine, tmp_path / "out.log")
    assert wait_until(pid, lambda: steps_logged(exp) >= 5)
    os.killpg(pid, number)  # as a terminal or a scheduler does: reading processes get it too
    assert finish(pid) == 130
    stopped = checkpoint.steps_in(exp / "checkpoints")
    assert len(stopped) == 1
    assert f"stopped after step {stopped[0]}; saved" in (tmp_path / "out.log").read_text()
    assert finish(fork_run(mine, tmp_path / "out.log")) == 0
    assert f"going on after step {stopped[0]}" in (tmp_path / "out.log").read_text()
    assert_same(exp, whole)


def test_a_damaged_newest_checkpoint_costs_time_but_no_bit(
    settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    exp = tmp_path / "exp"
    mine = {**settings, "exp_dir": str(exp)}
    pid = fork_run(mine, tmp_path / "out.log")
    assert wait_until(pid, lambda: len(checkpoint.steps_in(exp / "checkpoints")) >= 2)
    os.kill(pid, signal.SIGKILL)
    finish(pid)
    *_, before, last = checkpoint.steps_in(exp / "checkpoints")
    newest = checkpoint.folder_of(exp / "checkpoints", last)
    data = bytearray((newest / "trainer.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "trainer.pt").write_bytes(data)
    assert finish(fork_run(mine, tmp_path / "out.log")) == 0
    assert f"going on after step {before}" in (tmp_path / "out.log").read_text()
    assert_same(exp, whole)
