"""Masked-unit prediction: the head and the loss, computed on masked frames only.

Two forms of the same objective. Cross-entropy over one linear head is the k2SSL variant (arXiv 2411.17100,
icefall `egs/librispeech/SSL`). The cosine form is HuBERT's (arXiv 2106.07447, eq. 3): a softmax over cosine
similarities with every unit's embedding. fairseq gathers one embedding tensor per frame and candidate; a
product of normalised matrices gives the same numbers for a hundredth of the time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class MaskedUnitLoss(nn.Module):
    """A linear head over units and its cross-entropy; name the module `final_proj` for k2SSL's keys.

    Args:
        dim: width of the encoder's output.
        num_units: classes.
        temperature: divides the logits.
    """

    def __init__(self, dim: int, num_units: int, temperature: float = 0.1) -> None:
        super().__init__()
        linear = nn.Linear(dim, num_units)
        self.weight, self.bias = linear.weight, linear.bias
        self.temperature = temperature

    def logits(self, frames: torch.Tensor) -> torch.Tensor:
        """(N, D) -> (N, num_units)."""
        return F.linear(frames, self.weight, self.bias) / self.temperature

    def forward(self, frames: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of the chosen frames.

        Args:
            frames: (N, D), as `masked_frames` picks them.
            targets: (N,) int64.

        Returns:
            Scalars: summed loss in nats, how many frames were predicted correctly.
        """
        return unit_cross_entropy(self.logits(frames), targets)


class MaskedCosineLoss(nn.Module):
    """HuBERT's objective; name the module `final_proj` and the embeddings `label_embs_concat` for its keys.

    Args:
        dim: width of the encoder's output.
        final_dim: width of the space that frames and unit embeddings are compared in.
        temperature: divides the cosines.
    """

    def __init__(self, dim: int, final_dim: int, temperature: float = 0.1) -> None:
        super().__init__()
        linear = nn.Linear(dim, final_dim)
        self.weight, self.bias = linear.weight, linear.bias
        self.temperature = temperature

    def logits(self, frames: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, D) frames and (units, final_dim) embeddings -> (N, units) cosines over the temperature."""
        projected = F.normalize(F.linear(frames, self.weight, self.bias).float(), dim=-1, eps=1e-8)
        return projected @ F.normalize(embeddings.float(), dim=-1, eps=1e-8).T / self.temperature

    def forward(
        self, frames: torch.Tensor, targets: torch.Tensor, embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `MaskedUnitLoss.forward`, with the (units, final_dim) unit embeddings."""
        return unit_cross_entropy(self.logits(frames, embeddings), targets)


def masked_frames(labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Flat indices (N,) of the frames that are masked and have a label; (B, F) labels and mask."""
    return (mask & (labels >= 0)).flatten().nonzero()[:, 0]


def unit_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross-entropy in nats of (N, units) logits, and the number of correct frames."""
    logits = logits.float()
    loss = F.cross_entropy(logits, targets, reduction="sum")
    return loss, (logits.detach().argmax(-1) == targets).sum()


def feature_penalty(features: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Mean square of (B, F, C) convolution features over the (B, F) valid frames (None: all). Scalar."""
    square = features.float().square()
    if valid is None:
        return square.mean()
    return square.masked_fill(~valid[..., None], 0.0).sum() / (valid.sum() * features.shape[-1])
