"""From every layer's states to one sequence: standardisation, weighted sum, and a ladder beside it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from sslbench.finetune.peft.ladder import Ladder
from sslbench.nn.frontend import length_mask


class WeightedSum(nn.Module):
    """Softmax-weighted sum of layers, as in SUPERB (Yang et al., Interspeech 2021)."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, layers: int, dim: int, normalise: str, ladder: Ladder | None = None) -> None:
        super().__init__()
        self.ladder = ladder
        self.weights = nn.Parameter(torch.zeros(layers))
        self.normalise = normalise
        self.register_buffer("mean", torch.zeros(layers, dim))
        self.register_buffer("scale", torch.ones(layers, dim))

    def forward(self, states: torch.Tensor, lens: torch.Tensor | None = None) -> torch.Tensor:
        """(B, F, L, D) -> (B, F, D), zero beyond the valid frames (B,) where these are given."""
        if self.normalise == "layer":
            states = F.layer_norm(states, states.shape[-1:])
        elif self.normalise == "channel":
            states = (states - self.mean) * self.scale
        features = torch.einsum("bfld,l->bfd", states, self.weights.softmax(0).to(states.dtype))
        if lens is None:
            lens = torch.full((len(states),), states.shape[1], device=states.device)
        mask = length_mask(lens, states.shape[1])
        if self.ladder is not None:
            features = features + self.ladder(states, mask)
        return features * mask[:, :, None]

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Measure every channel's mean and variance.

        Args:
            batches: (states (B, F, L, D), valid frames (B,)) pairs.
        """
        count, total, squares = 0, torch.zeros_like(self.mean).double(), torch.zeros_like(self.mean).double()
        for states, lens in batches:
            valid = torch.cat([state[:length] for state, length in zip(states, lens.tolist(), strict=True)])
            count += len(valid)
            total += valid.sum(0).double()
            squares += valid.double().square().sum(0)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        # a channel that never changes stays as it is instead of being blown up
        self.scale.copy_(torch.where(deviation > 1e-5, 1 / deviation.clamp(min=1e-5), 1.0))


def stack_frames(features: torch.Tensor, stack: int) -> torch.Tensor:
    """Concatenate neighbours: (B, F, D) -> (B, ceil(F / stack), stack · D), zero-padded at the end."""
    batch, frames, dim = features.shape
    features = F.pad(features, (0, 0, 0, -frames % stack))
    return features.reshape(batch, -1, stack * dim)
