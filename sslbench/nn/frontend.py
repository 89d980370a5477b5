"""Waveform front end shared by the model families: the wav2vec 2.0 CNN, made padding-safe.

Source: wav2vec 2.0 (arXiv 2006.11477) §2 and HuBERT (arXiv 2106.07447) §4.2; state-dict keys as fairseq's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from sslbench.device import send
from sslbench.errors import SslbenchError
from sslbench.nn.strided import Norm, compute_dtype, first_two, next_layer

WAV2VEC2_LAYERS: list[tuple[int, int, int]] = [(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2
"""(channels, kernel, stride) of the published CNN: 320 samples per frame, 400 samples of context."""


class WaveformCNN(nn.Module):
    """Strided convolutions from samples to frames; a clip's valid frames do not depend on its padding.

    Args:
        layers: (channels, kernel, stride) of every convolution.
        norm: "group" (one channel-wise GroupNorm after the first convolution) or "layer" (LayerNorm
            over channels after every convolution).
        bias: whether convolutions have a bias.
        leak_padding: for comparisons with the published code: its operators one by one, and so GroupNorm
            statistics over the padding too.

    Raises:
        SslbenchError: unknown norm or no layers.
    """

    def __init__(
        self,
        layers: Sequence[tuple[int, int, int]] = WAV2VEC2_LAYERS,
        norm: str = "group",
        bias: bool = False,
        leak_padding: bool = False,
    ) -> None:
        super().__init__()
        if norm not in ("group", "layer") or not layers:
            raise SslbenchError(f"WaveformCNN: needs layers and norm 'group' or 'layer', got {norm!r}")
        self.norm = norm
        self.leak_padding = leak_padding
        self.geometry = [(kernel, stride) for _, kernel, stride in layers]
        self.channels = layers[-1][0]
        self.window = min_samples(self.geometry)
        # Indices 0 and 2 (and 2.1) are where fairseq's Sequential puts convolution and norm.
        blocks, previous = [], 1
        for index, (channels, kernel, stride) in enumerate(layers):
            conv = nn.Conv1d(previous, channels, kernel, stride, bias=bias)
            nn.init.kaiming_normal_(conv.weight)
            block: dict[str, nn.Module] = {"0": conv}
            if norm == "layer":
                block["2"] = nn.ModuleDict({"1": nn.LayerNorm(channels)})
            elif index == 0:
                block["2"] = nn.GroupNorm(channels, channels)
            blocks.append(nn.ModuleDict(block))
            previous = channels
        self.conv_layers = nn.ModuleList(blocks)

    def frame_lens(self, audio_lens: torch.Tensor) -> torch.Tensor:
        """Frames whose whole window lies in the clip, (B,) int64; at least one."""
        lens = audio_lens.clamp_min(self.window)
        for kernel, stride in self.geometry:
            lens = (lens - kernel) // stride + 1
        return lens

    def forward(self, audio: torch.Tensor, audio_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames of padded clips.

        Args:
            audio: (B, T) float, zero beyond each length; clips below one window are zero-padded to it.
            audio_lens: (B,) int64 samples, with the audio or on the CPU.

        Returns:
            Features (B, F, C), arbitrary beyond each clip's frames, and frame lengths (B,) >= 1 where
            `audio_lens` lies.
        """
        if audio.shape[1] < self.window:
            audio = F.pad(audio, (0, self.window - audio.shape[1]))
        if self.leak_padding:
            return self._as_published(audio), self.frame_lens(audio_lens)
        kernel, stride = self.geometry[0]
        windows = audio.unfold(1, kernel, stride)  # (B, T', kernel)
        lens = (audio_lens.clamp_min(self.window) - kernel) // stride + 1
        total = windows.shape[1]
        windows, weight = self._first(windows, lens)
        rows = math.prod(step for _, step in self.geometry[1:])  # divides every layer's padded length
        windows = F.pad(windows.to(compute_dtype(weight)), (0, 0, 0, -total % rows))
        blocks = [cast(nn.ModuleDict, block) for block in self.conv_layers]
        norms = [self._norm(block) for block in blocks]
        if len(blocks) == 1:
            y = (windows @ weight.to(windows.dtype)).flatten(0, 1)
        for index, (kernel, stride) in enumerate(self.geometry[1:], start=1):
            conv, norm = cast(nn.Conv1d, blocks[index]["0"]), norms[index - 1]
            if index == 1:
                y = first_two(windows, weight, norm, stride, conv.weight, conv.bias)
            else:
                y = next_layer(y, norm, stride, conv.weight, conv.bias)
            lens, total = (lens - kernel) // stride + 1, (total - kernel) // stride + 1
        y = y.view(len(audio), -1, self.channels)[:, :total]
        return norms[-1].gelu(y)[0], lens

    def _first(self, windows: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first convolution, its GroupNorm folded in, as a product with (B, T, kernel) windows.

        A channel w · u has mean w · mean(u) and variance w · cov(u) · w, so its statistics follow from ten
        samples' covariances, and centring the windows centres every channel, whatever the bias.

        Returns:
            Windows with a 1 appended, (B, T, kernel + 1), and weights (B, kernel + 1, C), the last the bias.
        """
        block = cast(nn.ModuleDict, self.conv_layers[0])
        conv = cast(nn.Conv1d, block["0"])
        weight = conv.weight[:, 0].T.expand(len(windows), -1, -1)  # (B, kernel, C)
        bias = torch.zeros_like(conv.weight[:, 0, 0]) if conv.bias is None else conv.bias
        if self.norm == "group":
            norm, lens = cast(nn.GroupNorm, block["2"]), send(lens, windows.device)
            valid = length_mask(lens, windows.shape[1])[..., None]
            exact, count = windows.double() * valid, lens[:, None, None].double()
            mean = exact.sum(1, keepdim=True) / count  # (B, 1, kernel)
            covariance = exact.transpose(1, 2) @ exact / count - mean.transpose(1, 2) @ mean
            wide = weight.double()  # so that each folded weight is rounded once
            var = (wide * (covariance @ wide)).sum(1, keepdim=True)  # (B, 1, C)
            wide = wide * norm.weight.double() * torch.rsqrt(var.clamp_min(0.0) + norm.eps)
            windows, weight = windows - mean.to(windows.dtype), wide.to(weight.dtype)
            bias = norm.bias + 0 * bias
        weight = torch.cat([weight, bias.expand(len(windows), 1, -1)], dim=1)
        return F.pad(windows, (0, 1), value=1.0), weight

    def _as_published(self, audio: torch.Tensor) -> torch.Tensor:
        """(B, T) -> (B, F, C) by the original's convolution and norm operators."""
        x = audio[:, None]  # (B, 1, T)
        for layer in self.conv_layers:
            block = cast(nn.ModuleDict, layer)
            x = block["0"](x)
            if self.norm == "layer":
                x = cast(nn.ModuleDict, block["2"])["1"](x.transpose(1, 2)).transpose(1, 2)
            elif "2" in block:
                x = block["2"](x)
            x = F.gelu(x)
        return x.transpose(1, 2)

    def _norm(self, block: nn.ModuleDict) -> Norm:
        if self.norm == "group":
            return Norm(None, None)
        norm = cast(nn.LayerNorm, cast(nn.ModuleDict, block["2"])["1"])
        return Norm(norm.weight, norm.bias, norm.eps)


def min_samples(geometry: Sequence[tuple[int, int]]) -> int:
    """Shortest input that gives one frame, for (kernel, stride) layers."""
    samples = 1
    for kernel, stride in reversed(geometry):
        samples = (samples - 1) * stride + kernel
    return samples


def masked_channel_norm(
    x: torch.Tensor, lens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5
) -> torch.Tensor:
    """Channel-wise GroupNorm (one group per channel) with statistics over the first `lens` steps only.

    Args:
        x: (B, C, T).
        lens: (B,) int64, at least 1.
        weight: (C,) scale.
        bias: (C,) shift.
        eps: added to the variance.

    Returns:
        (B, C, T); beyond each row's steps arbitrary and without gradient.
    """
    y: torch.Tensor = _MaskedChannelNorm.apply(x.float(), lens, weight, bias, eps)
    return y.to(x.dtype)


def length_mask(lens: torch.Tensor, total: int) -> torch.Tensor:
    """(B, total) bool, True on the first `lens` positions of each row."""
    return torch.arange(total, device=lens.device) < lens[:, None]


def is_padded(lens: torch.Tensor, total: int) -> bool:
    """Whether some row ends before `total`. Meta tensors have no values: they count as unpadded, since
    MACs are counted clip by clip."""
    return not lens.is_meta and bool((lens < total).any())


def normalise_waveform(audio: torch.Tensor, audio_lens: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """Each clip to mean 0 and variance 1 over its own samples; zero beyond. (B, T) -> (B, T)."""
    one = torch.ones(1, device=audio.device)
    lens = send(audio_lens, audio.device).clamp_max(audio.shape[1])
    y = masked_channel_norm(audio[:, None], lens, one, torch.zeros_like(one), eps)[:, 0]
    return y.masked_fill(~length_mask(lens, audio.shape[1]), 0.0)


def expand_to_contract(
    states: torch.Tensor,
    frame_lens: torch.Tensor,
    audio_lens: torch.Tensor,
    stride: int = 320,
    max_samples: int | None = None,
) -> torch.Tensor:
    """Bring convolution frames to exactly ceil(len / stride) frames per clip.

    A convolution without padding gives one frame less than that for most lengths; each clip's last
    valid frame is repeated, and everything beyond is zero, so the result does not depend on padding.

    Args:
        states: (B, F, D).
        frame_lens: (B,) valid frames, at least 1.
        audio_lens: (B,) samples.
        stride: samples per frame.
        max_samples: padded length of the batch; None means the longest clip.

    Returns:
        (B, ceil(max_samples / stride), D).
    """
    longest = int(audio_lens.max()) if max_samples is None else max_samples
    total = -(-longest // stride)
    position = torch.arange(total, device=states.device)
    source = torch.minimum(position[None], (frame_lens - 1)[:, None])  # (B, total)
    wanted = length_mask((audio_lens + stride - 1) // stride, total)
    rows = torch.arange(states.shape[0], device=states.device)[:, None]
    return states[rows, source].masked_fill(~wanted[..., None], 0.0)


class _MaskedChannelNorm(torch.autograd.Function):
    """Written out because autograd would keep and pass over several (B, C, T) tensors more."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, lens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> torch.Tensor:
        total = x.shape[2]
        x = x.masked_fill(~length_mask(lens, total)[:, None], 0.0)
        # Two fused reductions over zero-filled rows, then rescaled from T to len steps:
        # sum (x - mean)^2 over the valid steps = T var0 - T mean0^2 (T / len - 1).
        var0, mean0 = torch.var_mean(x, dim=2, keepdim=True, correction=0)  # (B, C, 1)
        ratio = (total / lens.to(x.dtype))[:, None, None]
        mean = mean0 * ratio
        var = ((var0 - mean0.square() * (ratio - 1)) * ratio).clamp_min(0.0)
        inverse = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, lens, weight, mean, inverse)
        scale = weight[:, None] * inverse
        return torch.addcmul(bias[:, None] - mean * scale, x, scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, lens, weight, mean, inverse = ctx.saved_tensors
        padding = ~length_mask(lens, x.shape[2])[:, None]
        grad = grad.masked_fill(padding, 0.0)
        total = grad.sum(2, keepdim=True)  # (B, C, 1)
        product = torch.matmul(grad[:, :, None], x[..., None])[..., 0]
        product = (product - mean * total) * inverse  # sum of grad times normalised x
        grad_weight, grad_bias = product.sum((0, 2)), total.sum((0, 2))
        if not ctx.needs_input_grad[0]:
            return None, None, grad_weight, grad_bias, None
        scale = weight[:, None] * inverse
        count = lens.to(x.dtype)[:, None, None]
        slope = -scale * inverse * product / count
        grad_x = torch.addcmul(-scale * total / count - slope * mean, x, slope)
        grad_x.addcmul_(grad, scale).masked_fill_(padding, 0.0)
        return grad_x, None, grad_weight, grad_bias, None


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad * ctx.factor, None


def scale_gradient(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Identity whose gradient is multiplied by `factor` (`feature_grad_mult` of the published recipes)."""
    if factor == 1.0:
        return x
    y: torch.Tensor = _ScaleGradient.apply(x, factor) if factor > 0 else x.detach()
    return y
