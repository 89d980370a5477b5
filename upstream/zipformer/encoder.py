"""Stacks of Zipformer layers at several frame rates (arXiv 2310.11230, section 3.1; icefall)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.device import send
from sslbench.nn.frontend import is_padded, length_mask
from sslbench.nn.scheduled import ScheduledFloat, named_schedules, set_batch_counts
from sslbench.upstream.zipformer.attention import POSITION_DROPOUT, relative_positions
from sslbench.upstream.zipformer.config import ZipformerConfig
from sslbench.upstream.zipformer.layer import Bypass, ZipformerLayer

NARROW_SHARE = 0.125
PaddingMode = Literal["safe", "mask", "ignore"]


class Downsample(nn.Module):
    """Weighted sum of every `factor` frames; the clip's last frame is repeated to fill the last group."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.bias = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor, lens: Tensor) -> Tensor:
        """(B, T, D) with `lens` (B,) frames -> (B, ceil(T / factor), D)."""
        batch, frames, _ = x.shape
        groups = -(-frames // self.factor)
        share = self.bias.softmax(0)  # (factor,)
        position = torch.arange(groups * self.factor, device=x.device)
        last = (lens - 1)[:, None]  # (B, 1)
        rest = (share.sum() - share.cumsum(0))[last % self.factor]  # what the repeated last frame gets too
        weights = share.repeat(groups)[None] * (position <= last) + rest * (position == last)
        x = F.pad(x, (0, 0, 0, groups * self.factor - frames))
        x = (x * weights[..., None]).view(batch, groups, self.factor, -1)
        return x.sum(2)


class Stack(nn.Module):
    """Layers at one frame rate. `run` is shared by the plain and the downsampled form."""

    def __init__(self, layers: list[ZipformerLayer], pos_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.pos_dim = pos_dim

    def forward(
        self, x: Tensor, lens: Tensor, padded: bool, narrow: Tensor | None, mode: PaddingMode
    ) -> Tensor:
        """Run all layers.

        Args:
            x: (B, T, D).
            lens: (B,) valid frames.
            padded: whether any clip is shorter than T and that is to be heeded.
            narrow: (B, 1, D) channel mask of training, or None.
            mode: what padding means; only the downsampled form distinguishes.
        """
        positions = relative_positions(x.shape[1], self.pos_dim, x.device)
        positions = F.dropout(positions, POSITION_DROPOUT, self.training)
        valid = length_mask(lens, x.shape[1]) if padded else None
        x = x if narrow is None else x * narrow
        for layer in self.layers:
            x = layer(x, positions, valid)
            x = x if narrow is None else x * narrow
        return x


class DownsampledStack(nn.Module):
    """A stack at a lower frame rate, repeated back and mixed with its input."""

    def __init__(self, stack: Stack, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.downsample = Downsample(factor)
        self.encoder = stack
        self.out_combiner = Bypass(dim)

    def forward(
        self, x: Tensor, lens: Tensor, padded: bool, narrow: Tensor | None, mode: PaddingMode
    ) -> Tensor:
        """As `Stack.forward`."""
        repeated = lens if mode == "safe" else torch.full_like(lens, x.shape[1])
        slow = self.downsample(x, repeated)
        slow = self.encoder(slow, (lens + self.factor - 1) // self.factor, padded, narrow, mode)
        fast = slow.repeat_interleave(self.factor, dim=1)[:, : x.shape[1]]
        y: Tensor = self.out_combiner(x, fast)
        return y


class _Unused(nn.Module):
    """The original's output downsampling: its one weight is in every checkpoint, and never used."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))


class ZipformerEncoder(nn.Module):
    """All stacks; between them channels are cut off or filled with zeros."""

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__()
        self.dims = list(config.dims)
        self.unmasked_dims = list(config.unmasked_dims)
        self.encoders = nn.ModuleList(_stack(config, i) for i in range(len(config.dims)))
        self.downsample_output = _Unused()
        self.schedules = [schedule for _, schedule in named_schedules(self)]

    def set_batch_count(self, batch_count: float | None) -> None:
        """Move every schedule; None returns to the values that are used before the first call."""
        set_batch_counts(self.schedules, batch_count)

    def forward(self, x: Tensor, lens: Tensor, mode: PaddingMode = "safe") -> tuple[Tensor, list[Tensor]]:
        """Encode padded clips.

        Args:
            x: (B, T, dims[0]).
            lens: (B,) valid frames, at least 1; on the CPU, nobody waits for the device.
            mode: "safe": a clip's valid frames do not depend on its padding; "mask": attention and
                convolution do not see padding, but downsampling does (icefall's ASR recipes); "ignore":
                padding is treated as signal (k2SSL).

        Returns:
            The stitched (B, T, max dims) output, each channel from the last stack that has it, and every
            stack's (B, T, dims[i]) output.
        """
        padded = mode != "ignore" and is_padded(lens, x.shape[1])
        lens = send(lens, x.device)
        if mode == "ignore":
            lens = torch.full_like(lens, x.shape[1])
        outputs = []
        x = x.float()  # under autocast, the residual stream stays exact
        for stack, dim, narrow in zip(self.encoders, self.dims, self._narrow(x), strict=True):
            x = x[..., :dim] if dim <= x.shape[-1] else F.pad(x, (0, dim - x.shape[-1]))
            x = stack(x, lens, padded, narrow, mode)
            outputs.append(x)
        return stitch(outputs), outputs

    def _narrow(self, x: Tensor) -> Iterator[Tensor | None]:
        """Per stack the (B, 1, D) mask that confines some clips to the first channels, in training."""
        if not self.training:
            yield from [None] * len(self.dims)
            return
        wide, widest = torch.rand(2, x.shape[0], 1, 1, device=x.device) > NARROW_SHARE  # (B, 1, 1) each
        widest = wide & widest
        for dim, unmasked in zip(self.dims, self.unmasked_dims, strict=True):
            middle = unmasked + (dim - unmasked) // 2
            channel = torch.arange(dim, device=x.device)
            keep = (channel < unmasked) | (wide & (channel < middle)) | widest
            yield keep.to(x.dtype)


def stitch(outputs: list[Tensor]) -> Tensor:
    """(B, T, max D): each channel from the last of the (B, T, D_i) tensors that has it."""
    pieces, width = [outputs[-1]], outputs[-1].shape[-1]
    for x in reversed(outputs[:-1]):
        if x.shape[-1] > width:
            pieces.append(x[..., width:])
            width = x.shape[-1]
    return torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]


def _stack(config: ZipformerConfig, index: int) -> nn.Module:
    """Stack number `index`; its layers' skipping ends one after the other during the warm-up."""
    factor, dim, count = config.downsampling[index], config.dims[index], config.layers[index]
    part = config.warmup_batches / (len(config.dims) + 1)
    layers = []
    for i in range(count):
        begin, end = (part * (index + 1 + done / count) for done in (i, i + 1))
        skip_rate = ScheduledFloat((begin, 0.5), (end, 0.035 * factor**0.5))
        layers.append(
            ZipformerLayer(
                dim,
                config.ffn_dims[index],
                config.heads[index],
                config.kernels[index],
                config.pos_dim,
                config.query_head_dim,
                config.value_head_dim,
                config.pos_head_dim,
                skip_rate,
            )
        )
    stack = Stack(layers, config.pos_dim)
    return stack if factor == 1 else DownsampledStack(stack, dim, factor)
