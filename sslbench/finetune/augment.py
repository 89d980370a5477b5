"""SpecAugment on features: time spans and channel bands set to zero (Park et al., Interspeech 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

LARGEST_COVER = 0.2  # share of a clip that time masks may cover together (SpecAugment's p)


@dataclass
class FeatureMasker:
    """Masks (B, F, D) features while training."""

    time_masks: int
    time_mask_frames: int
    feature_masks: int
    feature_mask_share: float

    def __call__(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """Masked features; the random numbers come from torch's global CPU generator.

        Args:
            features: (B, F, D).
            lens: (B,) valid frames.
        """
        batch, frames, dim = features.shape
        if self.time_masks:
            longest = (lens.cpu() * LARGEST_COVER / self.time_masks).clamp(max=self.time_mask_frames)
            covered = _spans(self.time_masks, longest, lens.cpu(), frames)
            features = features.masked_fill(covered.to(features.device)[:, :, None], 0.0)
        if self.feature_masks:
            widest = torch.full((batch,), self.feature_mask_share * dim)
            covered = _spans(self.feature_masks, widest, torch.full((batch,), dim), dim)
            features = features.masked_fill(covered.to(features.device)[:, None, :], 0.0)
        return features


def _spans(number: int, longest: torch.Tensor, lens: torch.Tensor, size: int) -> torch.Tensor:
    """(B, size) bool: `number` spans per row, lengths uniform in [0, longest], within `lens`."""
    lengths = (torch.rand(len(lens), number) * (longest[:, None] + 1)).floor()
    starts = (torch.rand(len(lens), number) * (lens[:, None] - lengths + 1).clamp(min=0)).floor()
    where = torch.arange(size)[None, None, :]
    inside = (where >= starts[:, :, None]) & (where < (starts + lengths)[:, :, None])  # (B, number, size)
    return inside.any(dim=1)
