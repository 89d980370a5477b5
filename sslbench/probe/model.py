"""What is trained on frozen features: layer weights and the task's head."""

from __future__ import annotations

import torch
from torch import nn


class WeightedSum(nn.Module):
    """A learned convex combination of all layers, starting equal.

    s3prl's featurizer (s3prl/upstream/interfaces.py, `_weighted_sum`): softmax over one scalar per
    layer, all zero at first.
    """

    def __init__(self, layers: int) -> None:
        """One weight per layer."""
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(L, B, F, D) → (B, F, D)."""
        shares = self.weights.softmax(dim=0)
        # a matrix-vector product reads the states once, where a broadcast product would copy them
        return (shares @ states.flatten(1)).view(states.shape[1:])


class Probe(nn.Module):
    """Layer weights, then the task's head."""

    def __init__(self, layers: int, head: nn.Module) -> None:
        """Combine `layers` layers in front of a head."""
        super().__init__()
        self.mix = WeightedSum(layers)
        self.head = head

    def forward(self, states: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(L, B, F, D) features and (B,) frame counts → the head's logits."""
        logits: torch.Tensor = self.head(self.mix(states), lens)
        return logits

    def layer_shares(self) -> list[float]:
        """What each layer contributes; sums to one."""
        return [float(share) for share in self.mix.weights.detach().softmax(dim=0)]
