"""Settings of the HuBERT family; the defaults are k2SSL's optimized HuBERT Base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sslbench.errors import SslbenchError
from sslbench.nn.frontend import WAV2VEC2_LAYERS
from sslbench.nn.transformer import TransformerShape


@dataclass
class HubertConfig:
    """One HuBERT."""

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
    conv_layers: list[tuple[int, int, int]] = field(default_factory=lambda: list(WAV2VEC2_LAYERS))
    """Waveform CNN: (channels, kernel, stride) of each layer."""
    extractor_mode: Literal["group", "layer"] = "group"
    """CNN norm: GroupNorm after the first layer (Base) or LayerNorm after every layer (Large)."""
    conv_bias: bool = False
    """Biases in the CNN."""
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
    dropout_input: float = 0.0
    """On the projected CNN features, before masking."""
    layerdrop: float = 0.0
    """Chance that a layer is skipped in training."""
    feature_grad_mult: float = 1.0
    """Factor on the gradient that reaches the CNN; 0 freezes it."""
    normalize: bool = False
    """Bring each clip to mean 0, variance 1 first (Large)."""
    objective: Literal["ce", "nce"] = "ce"
    """"ce": cross-entropy of one linear head (k2SSL); "nce": softmax over cosines (original HuBERT)."""
    num_units: int = 504
    """Classes of the head: 500 clusters, and fairseq's four special symbols."""
    final_dim: int = 256
    """Width in which "nce" compares frames and unit embeddings."""
    temperature: float = 0.1
    """Divides the logits."""
    mask_prob: float = 0.8
    """Share of frames that spans would cover without overlap."""
    mask_span: int = 10
    """Frames per masked span."""
    mask_seed: int = 0
    """Seed of the masks."""
    compat: Literal["none", "k2ssl"] = "none"
    """"k2ssl": padding leaks into GroupNorm, penalty and frame counts as in the published code."""

    def __post_init__(self) -> None:
        if not 0 < self.mask_prob <= 1 or self.mask_span < 1:
            raise SslbenchError("hubert: mask_prob must lie in (0, 1] and mask_span be at least 1")
        self.conv_layers = [(int(c), int(k), int(s)) for c, k, s in self.conv_layers]

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
