"""The order in which training examples come: every task's default."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sslbench.probe.protocol import Protocol


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
