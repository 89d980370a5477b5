"""Utterance classification with a head that is linear up to the mean over frames.

Because mean(P·Σ wₗhₗ) = P·Σ wₗ·mean(hₗ), one mean per layer and clip is all the training data there is,
and the whole grid of learning rates trains as one stacked computation (`sslbench.probe.pooled`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sslbench.probe.metric import percent
from sslbench.probe.task import Prediction, ProbeTask
from sslbench.report.schema import Metric

PROJECTED = 256


class MeanHead(nn.Module):
    """Linear, mean over the valid frames, linear: s3prl's `projector` and `UtteranceLevel`
    (s3prl/downstream/model.py)."""

    def __init__(self, input_dim: int, classes: int) -> None:
        """Map `input_dim` features to `classes` logits per clip."""
        super().__init__()
        self.projector = nn.Linear(input_dim, PROJECTED)
        self.linear = nn.Linear(PROJECTED, classes)

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, F, D) and (B,) frame counts → (B, classes)."""
        projected = self.projector(features)
        valid = torch.arange(projected.shape[1], device=lens.device) < lens[:, None]  # (B, F)
        mean = projected.masked_fill(~valid[..., None], 0.0).sum(dim=1) / lens[:, None]
        logits: torch.Tensor = self.linear(mean)
        return logits


class UtteranceTask(ProbeTask):
    """One or more labels per clip, all right or wrong together; an example's target is a tuple of label
    indices, one per slot, and its reference their texts joined by `SEPARATOR`."""

    SEPARATOR = ", "
    pooled = True
    headline = "acc"
    higher_is_better = True
    slots: list[list[str]]
    """The labels of each slot, set by `prepare`; one slot unless the task says otherwise."""

    def __init__(self, tier: str) -> None:
        """Read the protocol of a tier."""
        super().__init__(tier)
        self.slots = []

    def head(self, input_dim: int) -> MeanHead:
        return MeanHead(input_dim, sum(len(slot) for slot in self.slots))

    def loss(self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[Any]) -> torch.Tensor:
        return self.losses(logits[None], torch.tensor(targets, device=logits.device))[0]

    def losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(K, B, C) logits of K probes and (B, slots) labels → (K,) losses: slots' cross-entropies added."""
        total = logits.new_zeros(len(logits))
        start = 0
        for slot, labels in enumerate(self.slots):
            own = logits[..., start : start + len(labels)].transpose(1, 2)  # (K, classes, B)
            wanted = targets[None, :, slot].expand(len(logits), -1)  # (K, B)
            total = total + F.cross_entropy(own, wanted, reduction="none").mean(dim=1)
            start += len(labels)
        return total

    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[Any]:
        best, start = [], 0
        for labels in self.slots:
            indices = logits[:, start : start + len(labels)].argmax(dim=-1).tolist()
            best.append([labels[i] for i in indices])
            start += len(labels)
        return [self.SEPARATOR.join(words) for words in zip(*best, strict=True)]

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        right = [float(row.hyp == row.ref) for row in predictions]
        speakers = [row.speaker for row in predictions]
        return percent("acc", right, [1.0] * len(right), speakers, higher_is_better=True)

    def selection(self, predictions: Sequence[Prediction]) -> float:
        return 100 * sum(row.hyp == row.ref for row in predictions) / len(predictions)

    def facts(self) -> dict[str, Any]:
        return {"labels": self.slots}
