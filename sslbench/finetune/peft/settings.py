"""Sizes of what is added to a frozen upstream."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PeftSettings:
    """Only the fields of the chosen `tune` are used."""

    rank: int = 8
    """LoRA: rank of every update; AdaLoRA: the average rank that remains."""
    initial_rank: int = 12
    """AdaLoRA: rank of every update at first."""
    alpha: float = 16.0
    """LoRA, AdaLoRA: updates are scaled by alpha / rank (LoRA)."""
    dropout: float = 0.0
    """LoRA, AdaLoRA: on the input of the updates."""
    orthogonality: float = 0.5
    """AdaLoRA: weight of the penalty that keeps the factors orthogonal."""
    targets: list[str] = field(default_factory=list)
    """LoRA, AdaLoRA: endings of the names of linear layers (`q_proj`, `fc1`). Without any, the query and
    value projections, or where an encoder's attention is no chain of modules, its feed-forward layers."""
    bottleneck: int = 32
    """Adapters: their inner width."""
    kernel: int = 3
    """Convolution adapters and the ladder: frames that a convolution sees, odd."""
    ladder_dim: int = 64
    """Ladder: width of the side network."""
