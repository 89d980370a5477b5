"""Pretraining that is killed, stopped or starved goes on as if nothing had happened: a quick sample.

The campaign of `test_kill_campaign.py` does the same often: `pytest tests/faults -m kill`.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from harness import Trial, assert_no_repeats_or_gaps, die_inside_a_save, limit_file_size
from pretrain_toy import finish

from sslbench.train import checkpoint

EVERYTHING = {f"train{i:03d}" for i in range(48)}


def test_kills_at_random_moments_change_no_bit(
    toy_settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    rng, trial = random.Random(4), Trial(toy_settings, tmp_path)
    statuses = [trial.signal_after(rng.randint(5, 9), rng, signal.SIGKILL) for _ in range(3)]
    assert statuses == [-signal.SIGKILL] * 3, trial.said()
    trial.complete()
    trial.assert_same_as(whole)
    assert_no_repeats_or_gaps(trial.exp, EVERYTHING)


def test_kills_inside_a_checkpoint_write_change_no_bit(
    toy_settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    trial = Trial(toy_settings, tmp_path)
    for sync in (1, 4, 5):  # the first file; the folder; after the rename
        assert finish(trial.start(die_inside_a_save(saves=2, sync=sync))) == -signal.SIGKILL
        torn = list((trial.exp / "checkpoints").glob(".tmp-*"))
        assert len(torn) == (sync < 5)
    trial.complete()
    trial.assert_same_as(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_saves_and_says_so(
    toy_settings: dict[str, Any], whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    trial = Trial(toy_settings, tmp_path, save_every=1000, num_workers=1)
    pid = trial.start()
    assert trial.wait_for(pid, lambda: trial.logged >= 5)
    os.killpg(pid, number)  # as a terminal or a scheduler does: reading processes get it too
    assert finish(pid) == 130
    stopped = checkpoint.steps_in(trial.exp / "checkpoints")
    assert len(stopped) == 1
    assert f"stopped after step {stopped[0]}; saved" in trial.said()
    trial.complete()
    assert f"going on after step {stopped[0]}" in trial.said()
    trial.assert_same_as(whole)


def test_a_checkpoint_that_cannot_be_written_stops_the_run_and_harms_nothing(
    toy_settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    trial = Trial(toy_settings, tmp_path)
    assert trial.signal_after(8, random.Random(1), signal.SIGINT) == 130
    good = checkpoint.newest_good(trial.exp / "checkpoints")
    assert finish(trial.start(limit_file_size(60_000))) == 2
    assert "free space and run the same command again" in trial.said()
    assert checkpoint.newest_good(trial.exp / "checkpoints") == good
    trial.complete()
    trial.assert_same_as(whole)


def test_a_damaged_newest_checkpoint_costs_time_but_no_bit(
    toy_settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    trial = Trial(toy_settings, tmp_path)
    pid = trial.start()
    assert trial.wait_for(pid, lambda: len(checkpoint.steps_in(trial.exp / "checkpoints")) >= 2)
    os.kill(pid, signal.SIGKILL)
    finish(pid)
    *_, before, last = checkpoint.steps_in(trial.exp / "checkpoints")
    newest = checkpoint.folder_of(trial.exp / "checkpoints", last)
    data = bytearray((newest / "trainer.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "trainer.pt").write_bytes(data)
    trial.complete()
    assert f"going on after step {before}" in trial.said()
    trial.assert_same_as(whole)
