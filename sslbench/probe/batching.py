"""The order in which training examples come: every task's default."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def batches(examples: int, batch_clips: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of the numbers below `examples`: each once per epoch, in a seeded order. A batch may
    span two epochs."""
    rng = np.random.default_rng(seed)
    waiting: list[int] = []
    while True:
        waiting += [int(i) for i in rng.permutation(examples)]
        while len(waiting) >= batch_clips:
            yield waiting[:batch_clips]
            waiting = waiting[batch_clips:]


def weighted_batches(weights: Sequence[float], batch_clips: int, seed: int) -> Iterator[list[int]]:
    """Endless batches drawn with replacement by weight; an epoch's incomplete last batch is dropped.

    s3prl's `WeightedRandomSampler` with `drop_last` (downstream/speech_commands/expert.py).
    """
    rng = np.random.default_rng(seed)
    shares = np.asarray(weights, float) / float(np.sum(weights))
    size = min(batch_clips, len(shares))
    while True:
        drawn = rng.choice(len(shares), size=len(shares), p=shares)
        for start in range(0, len(drawn) - size + 1, size):
            yield [int(i) for i in drawn[start : start + size]]
