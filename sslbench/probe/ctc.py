"""What the probe tasks with a CTC head share: loss, best path, batches by length, error rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from sslbench.probe.metric import percent
from sslbench.probe.task import Prediction
from sslbench.report.schema import Metric


def ctc_loss(
    logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[Sequence[int]], blank: int = 0
) -> torch.Tensor:
    """Each clip's CTC loss divided by its target's length, averaged; clips too short for theirs count 0.

    That is torch's reduction "mean" with `zero_infinity`, which s3prl's experts use.

    Args:
        logits: (B, F, classes).
        lens: (B,) frames.
        targets: label indices per clip.
        blank: its index.
    """
    flat = torch.tensor([label for target in targets for label in target], device=logits.device)
    target_lens = torch.tensor([len(target) for target in targets])
    log_probs = logits.log_softmax(dim=-1).transpose(0, 1)  # (F, B, classes)
    return F.ctc_loss(log_probs, flat, lens, target_lens, blank=blank, zero_infinity=True)


def best_path(logits: torch.Tensor, lens: torch.Tensor, dropped: Sequence[int]) -> list[list[int]]:
    """Each clip's best label per frame, repeats merged, without the labels in `dropped` (the blank …)."""
    best = logits.argmax(dim=-1)  # (B, F)
    return [
        [label for label in path[:length].unique_consecutive().tolist() if label not in dropped]
        for path, length in zip(best, lens.tolist(), strict=True)
    ]


def window_batches(sizes: Sequence[float], window: int, windows: int, seed: int) -> Iterator[list[int]]:
    """Batches of neighbours in order of size, which overlap: s3prl's "bucketing" for PR and SF.

    There (s3prl/downstream/ctc/corpus/*.py) an epoch draws every position once, in random order, and
    each gives the `window` clips from it on (or the last ones). So a clip in the middle is seen `window`
    times per epoch, and the longest and shortest ones differently.

    Args:
        sizes: what s3prl sorts by, descending: the target's length.
        window: clips of one micro-batch.
        windows: micro-batches that are accumulated to one update.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    last = max(0, len(order) - window)
    waiting: list[int] = []
    while True:
        for start in rng.permutation(len(order)):
            waiting += order[min(last, int(start)) :][:window]
            if len(waiting) >= window * windows or len(order) < window:
                yield waiting
                waiting = []


def error_rate(
    name: str, predictions: Sequence[Prediction], split: Callable[[str], Sequence[str]] = str.split
) -> dict[str, Metric]:
    """Edit distance over reference length, pooled, in percent, with a bootstrap interval over speakers.

    Args:
        name: of the metric.
        predictions: texts; an empty reference is allowed.
        split: text to units.
    """
    from kaldialign import edit_distance

    errors = [float(edit_distance(split(r.ref), split(r.hyp))["total"]) for r in predictions]
    lengths = [float(len(split(row.ref))) for row in predictions]
    return percent(name, errors, lengths, [row.speaker for row in predictions])
