"""Frame-level scores and the permutation-free loss, as s3prl's diarization expert computes them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F


def pit_loss(logits: torch.Tensor, labels: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy with each recording's best order of speakers, per valid frame.

    Args:
        logits: (B, F, S).
        labels: (B, F, S) of 0 and 1.
        lens: (B,) valid frames.
    """
    valid = torch.arange(labels.shape[1], device=labels.device) < lens[:, None]  # (B, F)
    per_order = torch.stack(
        [
            (F.binary_cross_entropy_with_logits(logits, labels[..., list(order)], reduction="none").mean(-1))
            .mul(valid)
            .sum(1)
            for order in permutations(range(labels.shape[-1]))
        ],
        dim=1,
    )  # (B, orders)
    return per_order.min(dim=1).values.sum() / lens.sum()


@dataclass(frozen=True)
class FrameScore:
    """One recording, as fractions."""

    der: float
    accuracy: float


def frame_score(logits: NDArray[np.float32], labels: NDArray[np.float32]) -> FrameScore:
    """DER and accuracy over frames, speakers in the order of the lowest loss; 0 and 0 without any speech."""
    order = min(
        permutations(range(labels.shape[1])),
        key=lambda p: float(np.logaddexp(0.0, logits).sum() - (logits * labels[:, list(p)]).sum()),
    )
    said, heard = labels[:, list(order)].astype(int), (logits > 0).astype(int)
    n_said, n_heard = said.sum(axis=1), heard.sum(axis=1)
    total = int(n_said.sum())
    if total == 0:
        return FrameScore(0.0, 0.0)
    missed = np.maximum(n_said - n_heard, 0).sum()
    false = np.maximum(n_heard - n_said, 0).sum()
    confused = (np.minimum(n_said, n_heard) - (said & heard).sum(axis=1)).sum()
    return FrameScore(float((missed + false + confused) / total), float((said == heard).mean()))
