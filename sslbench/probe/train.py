"""Training: every learning rate of the grid in lock-step over the same batches of the same features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sslbench.errors import SslbenchError
from sslbench.probe.model import Probe
from sslbench.probe.protocol import Protocol
from sslbench.probe.store import Store
from sslbench.probe.task import Example, Prediction, ProbeTask
from sslbench.progress import Progress

EVAL_CLIPS = 32


@dataclass
class Candidate:
    """One learning rate: its probe, optimizer, best state on dev."""

    lr: float
    probe: Probe
    optimizer: torch.optim.Optimizer
    best_score: float | None = None
    best_step: int = 0
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    best_dev: list[Prediction] = field(default_factory=list)
    skipped_updates: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)


def candidates(task: ProbeTask, lrs: Sequence[float], layers: int, dim: int, seed: int) -> list[Candidate]:
    """One candidate per learning rate, all from the same initial weights."""
    made = []
    for lr in lrs:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            probe = Probe(layers, task.head(dim))
        made.append(Candidate(lr, probe, torch.optim.Adam(probe.parameters(), lr=lr)))
    return made


def batches(lens: Sequence[float], protocol: Protocol, seed: int) -> Iterator[list[int]]:
    """Endless batches of example numbers: every example once per epoch, in a seeded order.

    Without buckets a batch may span two epochs; with buckets, batches of similar length are drawn in
    random order and the last one of an epoch may be smaller (s3prl's ctc loader).
    """
    rng = np.random.default_rng(seed)
    size = protocol.batch_clips
    if protocol.bucket_by_length:
        by_length = sorted(range(len(lens)), key=lambda i: (-lens[i], i))
        buckets = [by_length[start : start + size] for start in range(0, len(by_length), size)]
        while True:
            yield from (buckets[int(i)] for i in rng.permutation(len(buckets)))
    waiting: list[int] = []
    while True:
        waiting += [int(i) for i in rng.permutation(len(lens))]
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]


class GridTrainer:
    """Trains all candidates over one stream of batches; features are fetched once per batch."""

    def __init__(
        self, task: ProbeTask, store: Store, examples: Sequence[Example], parts: dict[str, list[int]]
    ) -> None:
        """Set up.

        Args:
            task: prepared.
            store: features of all `examples`.
            examples: of every part.
            parts: numbers of the readable examples of "train", "dev" and "test".
        """
        self.task, self.store, self.examples, self.parts = task, store, examples, parts
        for part, numbers in parts.items():
            if not numbers:
                raise SslbenchError(f"{task.name}: no usable example in {part}")

    def train(self, grid: list[Candidate], seed: int) -> None:
        """Run the protocol's steps; afterwards each candidate holds its best state on dev."""
        protocol = self.task.protocol
        numbers = self.parts["train"]
        stream = batches([self.examples[n].cut.duration for n in numbers], protocol, seed)
        sums = [0.0] * len(grid)
        since = 0
        with Progress(f"{self.task.name}: steps × {len(grid)} lr", protocol.steps) as progress:
            for step in range(1, protocol.steps + 1):
                chosen = [numbers[i] for i in next(stream)]
                states, lens = self.store.batch(chosen)
                targets = [self.examples[n].target for n in chosen]
                for index, candidate in enumerate(grid):
                    sums[index] += self._update(candidate, states, lens, targets)
                since += 1
                if step % protocol.eval_every == 0 or step == protocol.steps:
                    self._evaluate(grid, step, [total / since for total in sums])
                    sums, since = [0.0] * len(grid), 0
                progress.advance(note=_note(grid))

    def _update(
        self, candidate: Candidate, states: torch.Tensor, lens: torch.Tensor, targets: list[tuple[int, ...]]
    ) -> float:
        loss = self.task.loss(candidate.probe(states, lens), lens, targets)
        candidate.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(candidate.probe.parameters(), self.task.protocol.grad_clip)
        # s3prl's runner leaves such updates out too; here they are counted
        if math.isfinite(float(norm)):
            candidate.optimizer.step()
        else:
            candidate.skipped_updates += 1
        return float(loss.detach())

    def _evaluate(self, grid: list[Candidate], step: int, losses: list[float]) -> None:
        predictions = self.predict([candidate.probe for candidate in grid], "dev")
        for candidate, rows, loss in zip(grid, predictions, losses, strict=True):
            score = self.task.metrics(rows)[self.task.headline].value
            entry = {"step": step, "dev": score}
            candidate.curve.append({**entry, "loss": loss} if math.isfinite(loss) else entry)
            if candidate.best_score is None or better(
                score, candidate.best_score, self.task.higher_is_better
            ):
                candidate.best_score, candidate.best_step, candidate.best_dev = score, step, rows
                state = candidate.probe.state_dict()
                candidate.best_state = {name: value.clone() for name, value in state.items()}

    def predict(self, probes: Sequence[Probe], part: str) -> list[list[Prediction]]:
        """Every probe's answers on a part, in the part's order; features are fetched once for all."""
        answers: list[dict[int, str]] = [{} for _ in probes]
        numbers = sorted(self.parts[part], key=lambda n: self.examples[n].cut.duration)
        for start in range(0, len(numbers), EVAL_CLIPS):
            chosen = numbers[start : start + EVAL_CLIPS]
            states, lens = self.store.batch(chosen)
            for answer, probe in zip(answers, probes, strict=True):
                probe.eval()
                with torch.inference_mode():
                    answer.update(zip(chosen, self.task.decode(probe(states, lens), lens), strict=True))
                probe.train()
        rows = [self.examples[n] for n in self.parts[part]]
        return [
            [
                Prediction(row.id, answer[n], row.reference, row.speaker)
                for n, row in zip(self.parts[part], rows, strict=True)
            ]
            for answer in answers
        ]


def better(score: float, than: float, higher_is_better: bool) -> bool:
    """Strictly better."""
    return score > than if higher_is_better else score < than


def _note(grid: list[Candidate]) -> str:
    known = [f"{c.lr:g}: {c.best_score:.2f}" for c in grid if c.best_score is not None]
    return "dev " + ", ".join(known) if known else ""
