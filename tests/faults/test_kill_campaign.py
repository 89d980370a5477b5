"""Seventy deaths of a run of 200 updates, and a hundred broken checkpoints: `pytest tests/faults -m kill`."""

from __future__ import annotations

import random
import shutil
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from harness import (
    Trial,
    assert_no_repeats_or_gaps,
    die_inside_a_save,
    limit_file_size,
    no_space_left,
    small_disk,
)
from pretrain_toy import finish

from sslbench.train import checkpoint

pytestmark = [pytest.mark.kill, pytest.mark.slow]
EVERYTHING = {f"train{i:03d}" for i in range(48)}
MUTATIONS = 100


@pytest.mark.parametrize(("seed", "workers"), [(1, 0), (2, 1)])
def test_twenty_kills_at_random_moments(
    long_settings: dict[str, Any], long_whole: Path, tmp_path: Path, seed: int, workers: int
) -> None:
    rng = random.Random(seed)
    trial = Trial(long_settings, tmp_path, num_workers=workers)
    statuses = [trial.signal_after(rng.randint(2, 7), rng, signal.SIGKILL) for _ in range(20)]
    assert statuses == [-signal.SIGKILL] * 20, trial.said()[-2000:]
    trial.complete()
    trial.assert_same_as(long_whole)
    assert_no_repeats_or_gaps(trial.exp, EVERYTHING)


def test_fifteen_kills_inside_a_checkpoint_write(
    long_settings: dict[str, Any], long_whole: Path, tmp_path: Path
) -> None:
    rng, trial = random.Random(3), Trial(long_settings, tmp_path)
    torn = 0
    for number in range(15):
        before = die_inside_a_save(saves=rng.randint(0, 3), sync=1 + number % 5)
        assert finish(trial.start(before)) == -signal.SIGKILL
        torn += bool(list((trial.exp / "checkpoints").glob(".tmp-*")))
    assert torn == 12  # the fifth wait comes after the rename
    trial.complete()
    trial.assert_same_as(long_whole)


def test_ten_interrupts(long_settings: dict[str, Any], long_whole: Path, tmp_path: Path) -> None:
    rng, trial = random.Random(5), Trial(long_settings, tmp_path, save_every=1000)
    statuses = [trial.signal_after(rng.randint(5, 15), rng, signal.SIGINT) for _ in range(10)]
    assert statuses == [130] * 10, trial.said()[-2000:]
    trial.complete()
    trial.assert_same_as(long_whole)


def test_five_full_disks(long_settings: dict[str, Any], long_whole: Path, tmp_path: Path) -> None:
    """On a file system of 4 MB that is filled up while the run goes on; where none can be mounted, by a
    limit on the size of files."""
    rng = random.Random(6)
    with small_disk(tmp_path / "disk") as mounted:
        trial = Trial(long_settings, tmp_path, exp=tmp_path / "disk" / "exp", keep_last=2)
        for _ in range(5):
            if mounted:
                pid = trial.start()
                goal = trial.logged + rng.randint(8, 20)
                assert trial.wait_for(pid, lambda goal=goal: trial.logged >= goal)
                with no_space_left(tmp_path / "disk"):
                    assert finish(pid) == 2, trial.said()
            else:
                assert trial.signal_after(rng.randint(8, 20), rng, signal.SIGINT) == 130
                assert finish(trial.start(limit_file_size(60_000))) == 2
        print("full disk by " + ("a mounted file system" if mounted else "RLIMIT_FSIZE"))
        trial.complete()
        trial.assert_same_as(long_whole)


def test_a_hundred_damaged_checkpoints(long_whole: Path, tmp_path: Path) -> None:
    """Flipped bits, cuts, missing and swapped files: always found, the checkpoint before is used."""
    rng = random.Random(7)
    *_, before, last = checkpoint.steps_in(long_whole / "checkpoints")
    sources = {step: checkpoint.folder_of(long_whole / "checkpoints", step) for step in (before, last)}
    names = sorted(path.name for path in sources[last].iterdir())
    for number in range(MUTATIONS):
        root = tmp_path / str(number)
        for source in sources.values():
            shutil.copytree(source, root / source.name)
        damage(root / sources[last].name / rng.choice(names), sources[before], rng)
        with pytest.warns(UserWarning, match="going back to the checkpoint before it"):
            assert checkpoint.newest_good(root) == before
        shutil.rmtree(root)
    with warnings.catch_warnings():  # the positive control: what is whole is taken
        warnings.simplefilter("error")
        assert checkpoint.newest_good(long_whole / "checkpoints") == last


def damage(path: Path, older: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    how = rng.choice(["flip", "flip", "truncate", "delete", "zeros", "swap"])
    if how == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif how == "truncate":
        del data[rng.randrange(len(data) - 2) :]
    elif how == "zeros":
        start = rng.randrange(len(data) // 2)
        data[start : start + 512] = bytes(len(data[start : start + 512]))
    elif how == "swap":
        data = bytearray((older / path.name).read_bytes())
    path.unlink()
    if how != "delete":
        path.write_bytes(data)
