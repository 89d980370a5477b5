"""The waveform CNN's arithmetic as plain matrix products over frames with channels last.

A convolution of kernel k and stride s over (rows, C) is a product with a view of s · C columns, plus one with
the same view shifted by a row for each further s taps: no unfolding, no transposes, no other layouts. On CPUs
this outruns the convolution operator, above all backward. All clips of a batch lie in one matrix, `stride`
divides their padded length at every layer, and rows beyond a clip's own hold junk that no valid row reads.

Between layers only the values before norm and GELU are kept; those functions are computed again in the
backward pass. Of the first layer, the largest, nothing is kept: it is computed again from the samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_VALUES = {"cpu": 1 << 21, "cuda": 1 << 28}
"""Activations that exist at a time, by device. Small enough to stay in a CPU's cache."""


@dataclass(frozen=True)
class Norm:
    """LayerNorm before the GELU, or nothing."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float = 1e-5

    def gelu(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Activation of (…, C), and what it is the GELU of."""
        if self.weight is None:
            return F.gelu(y), y
        z = F.layer_norm(y, y.shape[-1:], self.weight.to(y.dtype), _to(self.bias, y.dtype), self.eps)
        return F.gelu(z), z

    def backward(self, grad: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gradients of the input, weight and bias from that of the activation, whose memory is used."""
        torch.ops.aten.gelu_backward.grad_input(grad, z, grad_input=grad)
        if self.weight is None:
            return grad, None, None
        shape, weight = y.shape[-1:], self.weight.to(y.dtype)
        _, mean, scale = torch.native_layer_norm(y, shape, weight, _to(self.bias, y.dtype), self.eps)
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_layer_norm_backward(
            grad, y, shape, mean, scale, weight, _to(self.bias, y.dtype), [True, True, True]
        )
        return found[0], found[1].to(self.weight.dtype), found[2].to(self.weight.dtype)


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The type that matrix products run in here: autocast's, or the weight's own."""
    kind = weight.device.type
    # autocast does not know "meta", and torch before 2.4, k2's, has no such question
    if weight.is_meta or torch.__version__ < "2" or not torch.is_autocast_enabled(kind):
        return weight.dtype
    return torch.get_autocast_dtype(kind)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """For code that chooses its types itself."""
    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _to(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else x.to(dtype)


def _pieces(x: Tensor, weight: Tensor, stride: int, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Of (N, C) input and (D, C, k) weight: views of up to `rows` rows of w · C columns, and (D, w · C)."""
    channels, kernel = weight.shape[1:]
    table = x.view(-1, stride * channels)
    for shift, begin in enumerate(range(0, kernel, stride)):
        width = min(stride, kernel - begin)
        part = weight[:, :, begin : begin + width].transpose(1, 2).flatten(1)
        yield table[shift : shift + rows, : width * channels], part


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, out: Tensor) -> None:
    """Fill (rows, D) `out` from (at least rows · stride, C) `x`, whose further rows are read where there."""
    for shift, (view, part) in enumerate(_pieces(x, weight, stride, len(out))):
        target = out[: len(view)]
        if shift:
            torch.addmm(target, view, part.T, out=target)
        elif bias is None:
            torch.mm(view, part.T, out=target)
        else:
            torch.addmm(bias, view, part.T, out=target)


def convolve_backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Gradients of `convolve`'s input and weight."""
    grad_x, grad_parts = torch.empty_like(x), []
    table = grad_x.view(-1, stride * x.shape[1])
    table[len(grad) :].zero_()
    for shift, (view, part) in enumerate(_pieces(x, weight, stride, len(grad))):
        own, target = grad[: len(view)], table[shift : shift + len(view), : view.shape[1]]
        if shift:
            torch.addmm(target, own, part, out=target)
        elif target.is_contiguous():
            torch.mm(own, part, out=target)
        else:  # a kernel below the stride leaves samples out
            table.zero_()
            target.copy_(own @ part)
        grad_parts.append((own.T @ view).unflatten(1, (-1, weight.shape[1])).transpose(1, 2))
    return grad_x, torch.cat(grad_parts, dim=2)


def _chunks(rows: int, channels: int, stride: int, kernel: int, device: torch.device) -> Iterator[_Chunk]:
    """Output rows by turns, with the input rows that they are made of."""
    size = max(1, CHUNK_VALUES.get(device.type, 1 << 21) // (channels * stride))
    further = (-(-kernel // stride) - 1) * stride
    for begin in range(0, rows, size):
        end = min(begin + size, rows)
        last = min(end * stride + further, rows * stride)
        yield _Chunk(slice(begin, end), slice(begin * stride, last), (end - begin) * stride)


class _Chunk(NamedTuple):
    out: slice
    source: slice
    own: int
    """Source rows that belong to this chunk alone; those beyond are the next one's too."""


class _Sums:
    """Totals of gradients over chunks, in fp32."""

    def __init__(self) -> None:
        self.values: list[Tensor | None] = []

    def add(self, *found: Tensor | None) -> None:
        wide = [None if x is None else x.float() for x in found]
        if not self.values:
            self.values = list(wide)
        for total, x in zip(self.values, wide, strict=True):
            if total is not None and x is not None and total is not x:
                total += x


class _Next(torch.autograd.Function):
    """Norm, GELU and convolution of a layer's (rows, C) output."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, norm: Norm, stride: int, weight: Tensor, bias: Tensor | None, *_: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(y, weight, norm.weight, norm.bias)
        ctx.stride, ctx.eps, ctx.biased = stride, norm.eps, bias is not None
        narrow, narrow_bias = weight.to(y.dtype), _to(bias, y.dtype)
        out = y.new_empty(len(y) // stride, len(weight))
        for chunk in _chunks(len(out), y.shape[1], stride, weight.shape[2], y.device):
            x = norm.gelu(y[chunk.source])[0]
            convolve(x, narrow, narrow_bias, stride, out[chunk.out])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        y, weight, norm_weight, norm_bias = ctx.saved_tensors
        norm, narrow, sums = Norm(norm_weight, norm_bias, ctx.eps), weight.to(y.dtype), _Sums()
        grad = grads[0].contiguous()
        grad_y = torch.empty_like(y)
        carried: Tensor | None = None
        for chunk in _chunks(len(grad), y.shape[1], ctx.stride, weight.shape[2], y.device):
            x, z = norm.gelu(y[chunk.source])
            grad_x, grad_weight = convolve_backward(grad[chunk.out], x, narrow, ctx.stride)
            if carried is not None:
                grad_x[: len(carried)] += carried
            carried = grad_x[chunk.own :].clone()
            grad_z = grad_x[: chunk.own]
            source = slice(chunk.source.start, chunk.source.start + chunk.own)
            found, *of_norm = norm.backward(grad_z, y[source], z[: chunk.own])
            grad_y[source] = found
            sums.add(grad_weight, *of_norm)
        grad_bias = grad.sum(0, dtype=torch.float32) if ctx.biased else None
        total, *of_norm = sums.values
        return grad_y, None, None, total, grad_bias, *of_norm


class _FirstTwo(torch.autograd.Function):
    """The first layer from (B, rows, k) windows, its norm and GELU, and the second layer's convolution."""

    @staticmethod
    def forward(
        ctx: Any, windows: Tensor, first: Tensor, norm: Norm, stride: int, weight: Tensor,
        bias: Tensor | None, *_: Tensor | None,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(windows, first, weight, norm.weight, norm.bias)
        ctx.stride, ctx.eps, ctx.biased = stride, norm.eps, bias is not None
        dtype = windows.dtype
        narrow, narrow_bias, first = weight.to(dtype), _to(bias, dtype), first.to(dtype)
        rows = windows.shape[1] // stride
        out = windows.new_empty(len(windows), rows, len(weight))
        for clip in range(len(windows)):
            for chunk in _chunks(rows, first.shape[2], stride, weight.shape[2], windows.device):
                x = norm.gelu(windows[clip, chunk.source] @ first[clip])[0]
                convolve(x, narrow, narrow_bias, stride, out[clip, chunk.out])
        return out.flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        windows, first, weight, norm_weight, norm_bias = ctx.saved_tensors
        norm, dtype, sums = Norm(norm_weight, norm_bias, ctx.eps), windows.dtype, _Sums()
        narrow, narrow_first = weight.to(dtype), first.to(dtype)
        grad = grads[0].contiguous().view(len(windows), -1, len(weight))
        grad_first = torch.zeros_like(first)
        grad_windows = torch.zeros_like(windows) if ctx.needs_input_grad[0] else None
        for clip in range(len(windows)):
            for chunk in _chunks(grad.shape[1], first.shape[2], ctx.stride, weight.shape[2], windows.device):
                own = windows[clip, chunk.source]
                y = own @ narrow_first[clip]
                x, z = norm.gelu(y)
                grad_x, grad_weight = convolve_backward(grad[clip, chunk.out], x, narrow, ctx.stride)
                grad_y, *of_norm = norm.backward(grad_x, y, z)
                grad_first[clip] += (own.T @ grad_y).to(first.dtype)
                if grad_windows is not None:
                    grad_windows[clip, chunk.source] += grad_y @ narrow_first[clip].T
                sums.add(grad_weight, *of_norm)
        grad_bias = grad.sum((0, 1), dtype=torch.float32) if ctx.biased else None
        total, *of_norm = sums.values
        return grad_windows, grad_first, None, None, total, grad_bias, *of_norm


def first_two(
    windows: Tensor, first: Tensor, norm: Norm, stride: int, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Output of the second convolution before its norm.

    Args:
        windows: (B, rows, k) samples under each position of the first convolution, with a 1 at the end for
            its bias; `stride` divides rows.
        first: (B, k, C) weights of the first convolution, per clip, the bias last.
        norm: after the first convolution.
        stride: of the second convolution.
        weight: (D, C, kernel) of the second convolution.
        bias: (D,).

    Returns:
        (B · rows / stride, D) in the windows' type.
    """
    with without_autocast(windows.device):
        y: Tensor = _FirstTwo.apply(windows, first, norm, stride, weight, bias, norm.weight, norm.bias)
    return y


def next_layer(y: Tensor, norm: Norm, stride: int, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Norm and GELU of a convolution's (rows, C) output, then the next convolution: (rows / stride, D)."""
    with without_autocast(y.device):
        z: Tensor = _Next.apply(y, norm, stride, weight, bias, norm.weight, norm.bias)
    return z
