"""Training: every learning rate of the grid in lock-step over the same batches of the same features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sslbench.errors import SslbenchError
from sslbench.probe.grid import Grid
from sslbench.probe.resume import Unfinished
from sslbench.probe.task import Example, Prediction, ProbeTask
from sslbench.progress import Progress

STOP_FROM_SHARE = 0.25  # of the steps: nothing is stopped before
STOP_LAG = 4  # a stopped grid point is behind what the leader had at this fraction of the steps so far


@dataclass
class Point:
    """One learning rate (or other grid point): its best state on dev, and what it answered then."""

    value: float
    best_score: float | None = None
    best_step: int = 0
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    best_dev: list[Prediction] = field(default_factory=list)
    test: list[Prediction] = field(default_factory=list)
    """Of the best state on dev."""
    test_selected: list[Prediction] = field(default_factory=list)
    """Of the best state on test, for protocols that choose there."""
    test_score: float | None = None
    skipped_updates: int = 0
    stopped_at: int | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    layer_shares: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Fold:
    """The examples of one run and where their features are."""

    name: str
    """Empty unless the task has folds."""
    examples: Sequence[Example]
    """All clips of the task; numbers are positions in here and in the store."""
    parts: dict[str, list[int]]
    """Numbers of the readable examples of "train", "dev" and "test"."""

    def check(self, task: str, parts: Sequence[str]) -> None:
        """Raise `SslbenchError` when one of the parts is empty."""
        for part in parts:
            if not self.parts[part]:
                where = f" ({self.name})" if self.name else ""
                raise SslbenchError(f"{task}: no usable example in {part}{where}")

    def of(self, part: str) -> list[Example]:
        """The examples of a part."""
        return [self.examples[n] for n in self.parts[part]]


class GridTrainer:
    """Trains all grid points over one stream of batches, keeping each one's best state on dev."""

    def __init__(
        self, task: ProbeTask, fold: Fold, grid: Grid, points: Sequence[Point],
        unfinished: Unfinished | None = None,
    ) -> None:  # fmt: skip
        """Set up.

        Args:
            task: prepared.
            fold: its examples.
            grid: the probes, one per point.
            points: filled by `train`.
            unfinished: what an earlier run of the same training left, and where to save.
        """
        fold.check(task.name, ("train", "dev", "test"))
        self.task, self.fold, self.grid, self.points = task, fold, grid, points
        self._alive = list(range(len(points)))
        self._unfinished = unfinished

    def train(self, seed: int) -> None:
        """Run the protocol's steps; afterwards every point has its best state's answers on dev and test."""
        protocol = self.task.protocol
        stream = self.task.batches(self.fold.of("train"), seed)
        numbers = self.fold.parts["train"]
        sums, since, first = torch.zeros(len(self.points), dtype=torch.float64), 0, 0
        found = self._unfinished.load(self.grid, self.points) if self._unfinished else None
        if found:
            first, since, sums, self._alive = (found[name] for name in ("step", "since", "sums", "alive"))
            for _ in range(first):
                next(stream)
        what = f"{self.task.name}{' ' + self.fold.name if self.fold.name else ''}: steps × {len(self.points)}"
        with Progress(what, protocol.steps, done=first) as progress:
            for step in range(first + 1, protocol.steps + 1):
                sums += self.grid.update([numbers[i] for i in next(stream)], self._alive)
                since += 1
                if step % protocol.eval_every == 0 or step == protocol.steps:
                    self._evaluate(step, (sums / since).tolist())
                    sums, since = torch.zeros_like(sums), 0
                    if protocol.early_stop and self.task.tier != "full":
                        self._stop_hopeless(step)
                    progress.advance(0, note=self._note())
                progress.advance(note="")
                if self._unfinished:
                    now = {"step": step, "since": since, "sums": sums, "alive": self._alive}
                    self._unfinished.save(self.grid, self.points, now)
        self._finish()

    def _evaluate(self, step: int, losses: list[float]) -> None:
        answers = self._answers("dev", self._alive)
        tests = self._answers("test", self._alive) if self.task.test_selected else {}
        for k in self._alive:
            point, rows = self.points[k], answers[k]
            score = self.task.selection(rows)
            entry = {"step": step, "dev": score}
            if k in tests:
                entry["test"] = self._keep_test(point, tests[k])
            point.curve.append({**entry, "loss": losses[k]} if math.isfinite(losses[k]) else entry)
            if point.best_score is None or better(score, point.best_score, self.task.higher_is_better):
                point.best_score, point.best_step, point.best_dev = score, step, rows
                point.best_state = {name: value.clone() for name, value in self.grid.state(k).items()}

    def _keep_test(self, point: Point, rows: list[Prediction]) -> float:
        score = self.task.selection(rows)
        if point.test_score is None or better(score, point.test_score, self.task.higher_is_better):
            point.test_score, point.test_selected = score, rows
        return score

    def _stop_hopeless(self, step: int) -> None:
        if step < STOP_FROM_SHARE * self.task.protocol.steps:
            return
        higher = self.task.higher_is_better
        earlier = [
            e["dev"]
            for p in self.points
            for e in p.curve
            if e["step"] <= step / STOP_LAG and p.stopped_at is None
        ]
        if not earlier:
            return
        leader = max(earlier) if higher else min(earlier)
        for k in list(self._alive):
            best = self.points[k].best_score
            if best is not None and better(leader, best, higher):
                self.points[k].stopped_at = step
                self._alive.remove(k)

    def _finish(self) -> None:
        for k, point in enumerate(self.points):
            self.grid.load(k, point.best_state)
            point.skipped_updates = self.grid.skipped[k]
            point.layer_shares = self.grid.layer_shares(k)
        tests = self._answers("test", range(len(self.points)))
        for k, point in enumerate(self.points):
            point.test = tests[k]

    def _answers(self, part: str, which: Sequence[int]) -> dict[int, list[Prediction]]:
        """Prediction rows of a part by probe; features are fetched once for all."""
        numbers, examples = self.fold.parts[part], self.fold.of(part)
        found: dict[int, dict[int, Any]] = self.grid.answers(numbers, which)
        return {k: self.task.predictions(part, examples, [found[k][n] for n in numbers]) for k in which}

    def _note(self) -> str:
        known = [f"{p.value:g}: {p.best_score:.2f}" for p in self.points if p.best_score is not None]
        return "dev " + ", ".join(known) if known else ""


def better(score: float, than: float, higher_is_better: bool) -> bool:
    """Strictly better."""
    return score > than if higher_is_better else score < than
