"""Settings of the Fast-HuBERT family; the defaults are the published Base (system S8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sslbench.nn.masked_transformer import MaskedTransformerConfig


@dataclass
class FastHubertConfig(MaskedTransformerConfig):
    """One Fast-HuBERT: the shared settings with its own defaults."""

    front_end: Literal["waveform", "fbank"] = "fbank"
    """80 log-mel bins and two stride-2 convolutions: 25 Hz."""
    feature_penalty: float = 0.0
    """None: the published criterion ignores the recipe's `loss_weights`."""
    predict_layers: list[int] = field(default_factory=lambda: [4, 12])
    """Supervised layers; the published code counts them from zero (3, 11)."""
    dropout_input: float = 0.1
    """On the projected frames, before masking."""
    layerdrop: float = 0.05
    """Chance that a layer is skipped in training."""
