"""How cost grows with the length of a clip, from 5 s to 10 min, as a fitted curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.profile.macs import count_macs
from sslbench.profile.timing import measure
from sslbench.profile.workload import Workload, inference_step

LENGTHS_S = (5, 10, 20, 40, 80, 160, 320, 600)
TIMED_S = (5, 10, 20, 40)
"""Lengths that are run, not only counted: longer ones do not fit every machine."""


@dataclass(frozen=True)
class Curve:
    """`per_s * T + per_s2 * T^2` for a clip of T seconds."""

    per_s: float
    per_s2: float
    worst_error: float
    """Largest relative distance of a measured point from the curve."""

    @property
    def crossover_s(self) -> float | None:
        """Length at which the quadratic part costs as much as the linear one; None without one."""
        return self.per_s / self.per_s2 if self.per_s2 > 0 else None

    def at(self, length_s: float) -> float:
        """Cost of one clip."""
        return self.per_s * length_s + self.per_s2 * length_s**2


@dataclass(frozen=True)
class Growth:
    """Cost by length, batch 1."""

    macs_g: dict[int, float]
    """Seconds -> 10^9 MACs."""
    seconds: dict[int, float]
    """Seconds -> median wall time; empty when nothing was timed."""
    macs_curve: Curve


def measure_growth(build: Callable[[], nn.Module], timed: bool = True, budget_s: float = 1.0) -> Growth:
    """Count, and time, clips of growing length.

    Args:
        build: makes the frozen upstream.
        timed: whether the shorter lengths are run too.
        budget_s: wall seconds for each length.

    Raises:
        SslbenchError: the model fails.
    """
    buckets = {str(length): (length * SAMPLE_RATE_HZ,) for length in LENGTHS_S}
    macs_g = {int(name): value for name, value in count_macs(build, lengths=buckets).buckets_g.items()}
    seconds: dict[int, float] = {}
    if timed:
        upstream = build().eval()
        runs = {str(length): inference_step(upstream, Workload(1, length)) for length in TIMED_S}
        seconds = {int(name): t.median_s for name, t in measure(runs, 3, budget_s).items()}
    return Growth(macs_g, seconds, fit(list(macs_g), list(macs_g.values())))


def fit(lengths_s: Sequence[float], costs: Sequence[float]) -> Curve:
    """Least squares of relative errors, both parts at least 0; cost is 0 at length 0.

    Args:
        lengths_s: at least one length.
        costs: positive.
    """
    t, y = np.asarray(lengths_s, float), np.asarray(costs, float)
    both = np.stack([t / y, t**2 / y], axis=1)
    parts = np.linalg.lstsq(both, np.ones_like(y), rcond=None)[0]
    for alone in (0, 1):  # a negative part is dropped, and the other fitted without it
        if parts[1 - alone] < 0:
            parts = np.zeros(2)
            parts[alone] = both[:, alone].sum() / (both[:, alone] ** 2).sum()
    errors = np.abs(both @ parts - 1)
    return Curve(float(parts[0]), float(parts[1]), float(errors.max()))
