"""Ladder side-tuning: a small network beside the frozen encoder (Sung et al., NeurIPS 2022).

It reads every layer's states and sends no gradient into the encoder, so that features can be computed once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Rung(nn.Module):
    """h + up(gelu(conv(norm(h)))): what the side network does at one height."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, 2 * width, kernel, padding=kernel // 2)
        self.up = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, F, W), (B, F, 1) of 0 on padding -> (B, F, W)."""
        hidden = self.conv((self.norm(x) * mask).transpose(1, 2)).transpose(1, 2)
        y: torch.Tensor = x + self.up(F.gelu(hidden))
        return y


class Ladder(nn.Module):
    """Climbs the layers: each rung mixes the network's own state with the layer's, by a learned gate."""

    def __init__(self, layers: int, dim: int, width: int, kernel: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(dim, width) for _ in range(layers))
        self.gates = nn.Parameter(torch.zeros(layers))
        self.rungs = nn.ModuleList(Rung(width, kernel) for _ in range(layers))
        self.out = nn.Linear(width, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What is added to the weighted sum; zero before training.

        Args:
            states: (B, F, L, D), normalised as for the weighted sum.
            mask: (B, F) bool, False on padding.

        Returns:
            (B, F, D).
        """
        shares = self.gates.sigmoid()
        valid = mask[:, :, None].to(states.dtype)
        hidden = torch.zeros_like(self.down[0](states[:, :, 0]))
        for layer, (down, rung) in enumerate(zip(self.down, self.rungs, strict=True)):
            read = down(states[:, :, layer])
            mixed = shares[layer] * hidden + (1 - shares[layer]) * read if layer else read
            hidden = rung(mixed, valid)
        y: torch.Tensor = self.out(hidden)
        return y
