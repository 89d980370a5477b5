"""Where transformers' encoders let padding through, and the mends.

The attention masks of transformers cover attention and the input of the positional convolution. Three places
see padding all the same: the GroupNorm of the waveform CNN (its statistics), the depthwise convolutions of
Wav2Vec2-Conformer, and the later positional convolutions of data2vec.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.nn.frontend import masked_channel_norm


class Extent(nn.Module):
    """What the mended modules need to know of the batch in progress; None: nothing is padded."""

    samples: Tensor | None = None
    """(B,) valid samples."""
    valid: Tensor | None = None
    """(B, F) bool, valid frames."""

    def hide(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Forward pre-hook of a convolution over (B, D, F): its padded frames are zero, as beyond a clip."""
        if self.valid is None:
            return None
        return (args[0].masked_fill(~self.valid[:, None], 0.0), *args[1:])


class ClipGroupNorm(nn.Module):
    """A channel-wise GroupNorm after one convolution, with statistics over each clip's own frames."""

    def __init__(self, norm: nn.GroupNorm, kernel: int, stride: int, extent: Extent) -> None:
        """Take over the parameters of `norm`."""
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.kernel, self.stride = kernel, stride
        self._extent = [extent]  # in a list, so that it is no submodule of several parents

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T') -> (B, C, T')."""
        samples = self._extent[0].samples
        if samples is None:
            return F.group_norm(x, len(self.weight), self.weight, self.bias, self.eps)
        lens = (samples - self.kernel) // self.stride + 1
        return masked_channel_norm(x, lens, self.weight, self.bias, self.eps)


def mend(model: Any) -> Extent:
    """Close the leaks of one transformers encoder, keeping its state-dict keys.

    Args:
        model: one of the supported classes; changed in place.

    Returns:
        To be set before every forward.
    """
    extent = Extent()
    extractor = getattr(model, "feature_extractor", None)
    if extractor is not None:
        first = extractor.conv_layers[0]
        norm = getattr(first, "layer_norm", None)
        if isinstance(norm, nn.GroupNorm):
            first.layer_norm = ClipGroupNorm(norm, first.conv.kernel_size[0], first.conv.stride[0], extent)
    if model.config.model_type == "wav2vec2-conformer":
        for layer in model.encoder.layers:
            layer.conv_module.depthwise_conv.register_forward_pre_hook(extent.hide)
    if model.config.model_type == "data2vec-audio":
        for layer in model.encoder.pos_conv_embed.layers:
            layer.conv.register_forward_pre_hook(extent.hide)
    return extent
