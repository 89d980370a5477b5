"""Settings that every masked-unit model has, whatever its encoder: front end, masks, heads, loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sslbench.errors import SslbenchError
from sslbench.nn.fbank import FbankConfig
from sslbench.nn.frontend import WAV2VEC2_LAYERS


@dataclass
class MaskedUnitConfig:
    """Front end, masks, heads and loss; families add their encoder's settings."""

    front_end: Literal["waveform", "fbank"] = "waveform"
    """"waveform": the strided CNN of wav2vec 2.0; "fbank": log-mel filterbank and a subsampler."""
    conv_layers: list[tuple[int, int, int]] = field(default_factory=lambda: list(WAV2VEC2_LAYERS))
    """Waveform CNN: (channels, kernel, stride) of each layer."""
    extractor_mode: Literal["group", "layer"] = "group"
    """CNN norm: GroupNorm after the first layer (Base) or LayerNorm after every layer (HuBERT Large)."""
    conv_bias: bool = False
    """Biases in the CNN."""
    normalize: bool = False
    """Waveform front end: bring each clip to mean 0, variance 1 first (Large)."""
    fbank: FbankConfig = field(default_factory=FbankConfig)
    """Filterbank and subsampler of the fbank front end."""
    input_norm: bool = True
    """LayerNorm on the front end's frames; MelHuBERT has none."""
    dropout_input: float = 0.0
    """On the projected frames, before masking."""
    feature_grad_mult: float = 1.0
    """Factor on the gradient that reaches the front end; 0 freezes it."""
    feature_penalty: float = 10.0
    """Weight of the mean squared front-end output, per masked frame; 0 for fbank models."""
    objective: Literal["ce", "nce"] = "ce"
    """"ce": cross-entropy of linear heads (k2SSL); "nce": softmax over cosines (original HuBERT)."""
    predict_layers: list[int] = field(default_factory=lambda: [-1])
    """Intermediate-layer supervision: which of the encoder's states have a head. 0 is the encoder's input, n
    the output of layer (or stack) n, -1 the encoder's output. The loss is the mean over the heads; `acc`
    is that of the last in this list. Empty for an encoder imported without its head, which cannot be
    pretrained further."""
    num_units: int = 504
    """Classes of each head: 500 clusters, and four more as in the published models."""
    final_dim: int = 256
    """Width in which "nce" compares frames and unit embeddings."""
    temperature: float = 0.1
    """Divides the logits."""
    mask_prob: float = 0.8
    """Share of frames that spans would cover without overlap."""
    span_frames: int = 10
    """Frames per masked span: 10 are 200 ms at 50 Hz and 400 ms at 25 Hz."""
    mask_with: Literal["embedding", "zeros"] = "embedding"
    """"embedding": a learned vector after the projection; "zeros": zeros before it (MelHuBERT)."""
    mask_seed: int = 0
    """Seed of the masks."""
    compat: Literal["none", "k2ssl"] = "none"
    """"k2ssl": padding leaks where it does in the published code, for comparisons with it."""

    def __post_init__(self) -> None:
        self.conv_layers = [(int(c), int(k), int(s)) for c, k, s in self.conv_layers]
        if not 0 < self.mask_prob <= 1 or self.span_frames < 1:
            raise SslbenchError("model: mask_prob must lie in (0, 1] and span_frames be at least 1")
        if len(set(self.predict_layers)) != len(self.predict_layers):
            raise SslbenchError("model: predict_layers needs different layers, for example [4, 12] or [-1]")
