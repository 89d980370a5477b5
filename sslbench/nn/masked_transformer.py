"""A Transformer over either front end, trained on masked units: HuBERT and those that simplify it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sslbench.device import send
from sslbench.nn.frontend import expand_to_contract, is_padded, length_mask
from sslbench.nn.masked_config import MaskedUnitConfig
from sslbench.nn.masked_model import MaskedUnitModel
from sslbench.nn.transformer import TransformerEncoder, TransformerShape


@dataclass
class MaskedTransformerConfig(MaskedUnitConfig):
    """A masked-unit model with a Transformer; the sizes are HuBERT Base's."""

    layers: int = 12
    """Transformer layers."""
    dim: int = 768
    """Width of the Transformer."""
    ffn_dim: int = 3072
    """Width of its feed-forward modules."""
    heads: int = 12
    """Attention heads."""
    layer_norm_first: bool = False
    """LayerNorm before attention and feed-forward (Large) instead of after (Base)."""
    conv_pos: int = 128
    """Kernel of the positional convolution, in frames."""
    conv_pos_groups: int = 16
    """Groups of the positional convolution."""
    dropout: float = 0.1
    """After attention, after feed-forward and on the first layer's input."""
    attention_dropout: float = 0.1
    """On attention weights."""
    activation_dropout: float = 0.0
    """Inside the feed-forward module."""
    layerdrop: float = 0.0
    """Chance that a layer is skipped in training."""

    def shape(self) -> TransformerShape:
        """The Transformer's part of the settings."""
        return TransformerShape(
            layers=self.layers,
            dim=self.dim,
            ffn_dim=self.ffn_dim,
            heads=self.heads,
            norm_first=self.layer_norm_first,
            conv_pos=self.conv_pos,
            conv_pos_groups=self.conv_pos_groups,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_dropout=self.activation_dropout,
            layerdrop=self.layerdrop,
        )


class MaskedTransformer(MaskedUnitModel):
    """Front end, Transformer and masked-unit heads."""

    config: MaskedTransformerConfig

    def __init__(self, config: MaskedTransformerConfig) -> None:
        super().__init__(config, config.dim)
        self.encoder = TransformerEncoder(config.shape())
        self.add_heads([config.dim] * (config.layers + 1))

    def encode(self, features: Tensor, frame_lens: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """The first layer's input and every layer's output: layers + 1 of (B, F, D)."""
        x = self.embed(features, mask)
        padded = is_padded(frame_lens, x.shape[1])
        valid = length_mask(send(frame_lens, x.device), x.shape[1]) if padded else None
        states: list[Tensor] = self.encoder(x, valid)
        return states

    def hidden_states(self, audio: Tensor, audio_lens: Tensor) -> list[Tensor]:
        """The first layer's input and every layer's output: layers + 1 of (B, ceil(T / stride), D)."""
        features, frame_lens = self.features(audio, audio_lens)
        return [
            expand_to_contract(x, frame_lens, audio_lens, self.stride, max_samples=audio.shape[1])
            for x in self.encode(features, frame_lens)
        ]
