"""A grid's unfinished training on disk, so that a killed run goes on bit for bit."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sslbench.io import atomic_path
from sslbench.probe.grid import Grid
from sslbench.probe.task import Prediction

if TYPE_CHECKING:
    from sslbench.probe.train import Point

SAVE_EVERY_S = 300.0
ROWS = ("best_dev", "test", "test_selected")


class Unfinished:
    """One file with heads, optimizers, points and step of a grid; it is whole or absent."""

    def __init__(self, path: Path, key: str) -> None:
        """Nothing is read yet.

        Args:
            path: of the file.
            key: of everything that decides the training; a file with another one is not used.
        """
        self.path, self.key = path, key
        self.earlier_s = 0.0
        """Seconds that runs before this one spent on what they saved."""
        self._started = self._saved = time.monotonic()

    def _stored(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        stored: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        return stored if stored["key"] == self.key else {}

    def values(self) -> list[float]:
        """The grid points whose training is in the file; none without a file of this key."""
        return _values(self._stored())

    def load(self, grid: Grid, points: Sequence[Point]) -> dict[str, Any] | None:
        """Put grid and points back. Returns the `progress` given to `save`; None without a file of them."""
        stored = self._stored()
        if _values(stored) != [point.value for point in points]:
            return None
        grid.restore(stored["grid"])
        for point, values in zip(points, stored["points"], strict=True):
            for name, value in values.items():
                setattr(point, name, [Prediction(*row) for row in value] if name in ROWS else value)
        self.earlier_s = float(stored["spent_s"])
        progress: dict[str, Any] = stored["progress"]
        return progress

    def save(self, grid: Grid, points: Sequence[Point], progress: dict[str, Any]) -> None:
        """Write all of it, at most every `SAVE_EVERY_S`.

        Args:
            grid: the probes.
            points: their best states and answers so far.
            progress: plain values and tensors of the caller's.
        """
        now = time.monotonic()
        if now - self._saved < SAVE_EVERY_S:
            return
        whole = {
            "key": self.key, "spent_s": self.earlier_s + now - self._started, "progress": progress,
            "grid": grid.snapshot(), "points": [_plain(point) for point in points],
        }  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as temporary:
            torch.save(whole, temporary)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """The training is done and its results are written."""
        self.path.unlink(missing_ok=True)


def _values(stored: dict[str, Any]) -> list[float]:
    return [point["value"] for point in stored.get("points", [])]


def _plain(point: Point) -> dict[str, Any]:
    values = {field.name: getattr(point, field.name) for field in dataclasses.fields(point)}
    return values | {name: [dataclasses.astuple(row) for row in values[name]] for name in ROWS}
