"""A timer that a reviewer can trust: warm-up, interleaving, medians with their spread, and other load."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SPREAD_LIMIT = 0.03
"""A relative interquartile range above this flags the figure."""
LOAD_LIMIT_CORES = 0.2
"""Work of other processes above this, in cores, is stated."""


@dataclass
class Timing:
    """Repeated measurements of one thing."""

    seconds: list[float]
    """Wall time of each repeat, in order."""
    other_load_cores: float
    """Mean number of cores that other processes kept busy meanwhile; 0 where it cannot be read."""

    @property
    def median_s(self) -> float:
        """Median wall time."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range over the median (0 below two repeats)."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median_s

    @property
    def noisy(self) -> bool:
        """Whether the spread is above the limit, or there are too few repeats to know it."""
        return self.spread > SPREAD_LIMIT or len(self.seconds) < 3


def measure(
    work: Mapping[str, Callable[[], object]],
    repeats: int = 5,
    budget_s: float = 4.0,
    warmups: int = 1,
) -> dict[str, Timing]:
    """Time several things by turns, so that a slow minute of the machine hits all of them alike.

    Args:
        work: name to what is timed. CUDA is synchronised around each call where it is in use.
        repeats: at least this many rounds when the budget allows; never fewer than 3.
        budget_s: rounds go on (up to ten times `repeats`) until each thing has used this much wall time.
        warmups: untimed calls of each first.
    """
    for _ in range(warmups):
        for run in work.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in work}
    started, before = time.perf_counter(), _busy_s()
    while _goes_on(seconds, repeats, budget_s):
        for name, run in work.items():
            seconds[name].append(_once(run))
    wall_s = time.perf_counter() - started
    after = _busy_s()
    load = 0.0 if before is None or after is None else max(0.0, (after - before) / max(wall_s, 1e-9))
    return {name: Timing(times, load) for name, times in seconds.items()}


def _goes_on(seconds: Mapping[str, list[float]], repeats: int, budget_s: float) -> bool:
    if not seconds:
        return False
    rounds = min(len(times) for times in seconds.values())
    if rounds < 3:
        return True
    spent_s = min(sum(times) for times in seconds.values())
    if rounds < repeats:
        return spent_s < 2 * budget_s  # slow models: three rounds will do when five would take too long
    return rounds < 10 * repeats and spent_s < budget_s


def _once(run: Callable[[], object]) -> float:
    _synchronise()
    start = time.perf_counter()
    run()
    _synchronise()
    return time.perf_counter() - start


def _synchronise() -> None:
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _busy_s() -> float | None:
    """CPU seconds that the machine spent on anything but this process; None where /proc is missing."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except (OSError, IndexError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(value) for value in fields[:8])
    total_s = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    own = resource.getrusage(resource.RUSAGE_SELF)
    return total_s - own.ru_utime - own.ru_stime
