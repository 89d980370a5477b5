"""Runs that are killed, stopped, starved of disk, and compared bit by bit with one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "pretrain"))
from pretrain_toy import curve, finish, fork_run, weights

from sslbench.io import read_jsonl
from sslbench.train import checkpoint

DEADLINE_S = 120
POLL_S = 0.002
FULL_DISK_BYTES = 4 << 20


class Trial:
    """One run in one folder, gone on with as often as it takes."""

    def __init__(
        self, settings: dict[str, Any], folder: Path, exp: Path | None = None, **changes: Any
    ) -> None:
        self.exp, self.output = exp or folder / "exp", folder / "out.log"
        self.settings = {**settings, **changes, "exp_dir": str(self.exp)}
        self.steps: int = self.settings["max_steps"]

    def start(self, before: Callable[[], None] | None = None) -> int:
        """The process id of the run, begun or gone on with."""
        return fork_run(self.settings, self.output, before)

    def complete(self) -> None:
        """Run to the end."""
        assert finish(self.start()) == 0, self.said()[-2000:]

    def said(self) -> str:
        """All that was printed."""
        return self.output.read_text()

    @property
    def logged(self) -> int:
        """Lines in the log so far."""
        try:
            return (self.exp / "log.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def wait_for(self, pid: int, happened: Callable[[], bool]) -> bool:
        """Poll until something happened; False when the run ended first."""
        deadline = time.monotonic() + DEADLINE_S
        while not happened():
            assert time.monotonic() < deadline, "the run never got there"
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return False
            time.sleep(POLL_S)
        return True

    def signal_after(self, lines: int, rng: random.Random, number: int) -> int:
        """Go on, send a signal at a random moment some log lines later: the exit status."""
        goal, pid = self.logged + lines, self.start()
        # a resumed run first drops the lines after its checkpoint, so wait for the file to change hands
        if self.wait_for(pid, lambda: self.logged >= min(goal, self.steps)):
            time.sleep(rng.uniform(0, 0.05))
            os.kill(pid, number)
        return finish(pid)

    def assert_same_as(self, other: Path) -> None:
        """Loss curve, weights, average and utterance log are equal, bit for bit."""
        assert len(curve(self.exp)) == self.steps
        assert curve(self.exp) == curve(other)
        for name in ("model.safetensors", "average.safetensors"):
            assert weights(self.exp, self.steps, name) == weights(other, self.steps, name)
        assert used(self.exp) == used(other)
        assert not list((self.exp / "checkpoints").glob(".tmp-*"))


def used(exp: Path) -> list[tuple[int, int, list[str]]]:
    """(step, epoch, utterances) of every update."""
    return [(r["step"], r["epoch"], r["ids"]) for r in read_jsonl(exp / "utterances-0.jsonl")]


def assert_no_repeats_or_gaps(exp: Path, everything: set[str]) -> None:
    """Every complete epoch has every utterance exactly once; steps count up without a gap."""
    rows = used(exp)
    assert [step for step, _, _ in rows] == list(range(1, len(rows) + 1))
    epochs: dict[int, list[str]] = {}
    for _, epoch, ids in rows:
        epochs.setdefault(epoch, []).extend(ids)
    last = epochs.pop(max(epochs))
    assert len(last) == len(set(last))
    assert len(epochs) >= 2
    assert all(len(ids) == len(everything) and set(ids) == everything for ids in epochs.values())


def die_inside_a_save(saves: int, sync: int) -> Callable[[], None]:
    """For `Trial.start`: SIGKILL itself in the save after so many, at its n-th wait for the disk.

    A save waits for each file, its folder, then (after the rename) the folder of checkpoints.
    """

    def before() -> None:
        real_save, real_sync = checkpoint.save, checkpoint.fsync
        counts = {"save": 0, "sync": 0}

        def save(*args: Any, **kw: Any) -> Any:
            counts["save"], counts["sync"] = counts["save"] + 1, 0
            return real_save(*args, **kw)

        def fsync(path: Path) -> None:
            counts["sync"] += 1
            if counts["save"] > saves and counts["sync"] == sync:
                os.kill(os.getpid(), signal.SIGKILL)
            real_sync(path)

        checkpoint.save, checkpoint.fsync = save, fsync  # type: ignore[assignment]

    return before


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of a few MB mounted on a folder; yields False where mounting is not allowed."""
    import subprocess

    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={FULL_DISK_BYTES}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def no_space_left(folder: Path) -> Iterator[None]:
    """Fill the folder's file system to its last byte, and free it again."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        for block in (65_536, 4096, 1):
            try:
                while True:
                    stream.write(b"x" * block)
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()


def limit_file_size(limit_bytes: int) -> Callable[[], None]:
    """For `Trial.start`, where no small disk can be mounted: larger files cannot be written."""
    import resource

    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
