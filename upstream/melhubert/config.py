"""Settings of the MelHuBERT family; the defaults are the published 20 ms model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sslbench.nn.fbank import FbankConfig
from sslbench.nn.masked_transformer import MaskedTransformerConfig


def stacked_fbank() -> FbankConfig:
    """40 bins, Hamming window, two frames side by side: 80 numbers every 20 ms."""
    return FbankConfig(mel_bins=40, window="hamming", stack=2, kernels=[])


@dataclass
class MelHubertConfig(MaskedTransformerConfig):
    """One MelHuBERT: the shared settings with its own defaults."""

    front_end: Literal["waveform", "fbank"] = "fbank"
    """Stacked log-mel frames without any convolution."""
    fbank: FbankConfig = field(default_factory=stacked_fbank)
    """Filterbank and stacking."""
    input_norm: bool = False
    """No LayerNorm before the projection."""
    feature_penalty: float = 0.0
    """Nothing to penalise: the front end has no weights."""
    activation_dropout: float = 0.1
    """Inside the feed-forward module."""
    num_units: int = 512
    """k-means clusters."""
    temperature: float = 1.0
    """Plain logits."""
    mask_prob: float = 0.7
    """Share of frames that spans would cover without overlap."""
    span_frames: int = 5
    """100 ms spans."""
    mask_with: Literal["embedding", "zeros"] = "zeros"
    """Masked frames are zero before the projection."""
