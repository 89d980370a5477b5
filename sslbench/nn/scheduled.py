"""Numbers that change as training proceeds, and random decisions that a resumed run repeats.

Source: Zipformer (arXiv 2310.11230) and icefall's recipe; the points of each schedule are in
`upstream/zipformer`. Values are computed once per `set_batch_count`, not at each use.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import torch
from torch import nn


class ScheduledFloat:
    """Piecewise-linear in the batch count; constant before the first and after the last point.

    Args:
        points: (batch count, value), counts rising.
        default: the value as long as no batch count was set.
    """

    def __init__(self, *points: tuple[float, float], default: float = 0.0) -> None:
        self.points = points
        self.default = default
        self.value = float(default)

    def at(self, batch_count: float) -> float:
        """The value at a batch count."""
        i = bisect_right(self.points, batch_count, key=lambda point: point[0])
        if i == 0 or i == len(self.points):
            return float(self.points[max(i - 1, 0)][1])
        (x0, y0), (x1, y1) = self.points[i - 1 : i + 1]
        return y0 + (y1 - y0) * (batch_count - x0) / (x1 - x0)

    def set_batch_count(self, batch_count: float | None) -> None:
        """Move to a batch count; None goes back to the default."""
        self.value = float(self.default) if batch_count is None else self.at(batch_count)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"ScheduledFloat{self.points}"


FloatLike = float | ScheduledFloat


def current(x: FloatLike) -> float:
    """The value now; unlike `float(x)`, torch.compile sees through it."""
    return x.value if isinstance(x, ScheduledFloat) else x


def named_schedules(root: nn.Module) -> Iterator[tuple[str, ScheduledFloat]]:
    """Every schedule that a module or its children hold as an attribute, with its dotted name."""
    for name, module in root.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, ScheduledFloat):
                yield f"{name}.{key}" if name else key, value


def set_batch_counts(schedules: Iterable[ScheduledFloat], batch_count: float | None) -> None:
    """Move all schedules to one batch count."""
    for schedule in schedules:
        schedule.set_batch_count(batch_count)


def chance(probability: FloatLike) -> bool:
    """True with this probability; drawn on the CPU, so that the device need not be waited for."""
    p = current(probability)
    return p > 0 and torch.rand(()).item() < p
