"""Tasks side by side: one process and one device each, or a share of them per job of an array."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sslbench.errors import SslbenchError

REPLACED = ("--tasks", "--jobs", "--device", "--num_shards", "--shard")


def shard_of(names: Sequence[str], num_shards: int, shard: int) -> list[str]:
    """Every `num_shards`-th task from `shard` on. Raises `SslbenchError` for numbers that do not fit."""
    if num_shards < 1 or not 0 <= shard < num_shards:
        raise SslbenchError(
            f"--shard {shard} of --num_shards {num_shards}: shards are numbered from 0 to num_shards - 1"
        )
    return list(names[shard::num_shards])


def run_tasks(names: Sequence[str], jobs: int, devices: Sequence[str], words: Sequence[str]) -> int:
    """Run each task in a process of its own, at most `jobs` at a time, each on a free device.

    Args:
        names: of the tasks.
        jobs: processes at a time.
        devices: dealt out in turn.
        words: this process's command line after the program, for the children.

    Returns:
        0, or the status of the first task that failed; the others are finished nevertheless.
    """
    free: queue.Queue[str] = queue.Queue()
    for number in range(jobs):
        free.put(devices[number % len(devices)])

    def run(name: str) -> int:
        device = free.get()
        try:
            command = [sys.executable, "-m", "sslbench", *child_words(words, name, device)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        finally:
            free.put(device)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            print(f"{name}: failed with status {done.returncode}; see above", file=sys.stderr)
        return done.returncode

    with ThreadPoolExecutor(jobs) as pool:
        return next((status for status in list(pool.map(run, names)) if status), 0)


def child_words(words: Sequence[str], name: str, device: str) -> list[str]:
    """A child's command line: the parent's with one task on one device."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in REPLACED:
            skip = True
        elif word.split("=", 1)[0] not in REPLACED:
            kept.append(word)
    return [*kept, "--tasks", name, "--device", device]
