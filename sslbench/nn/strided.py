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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_VALUES = {"cpu": 1 << 24, "cuda": 1 << 28}
"""Values of the first layer's output that exist at a time, by device."""


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
        grad = torch.ops.aten.gelu_backward(grad, z)
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
    if weight.is_meta or not torch.is_autocast_enabled(kind):  # autocast does not know "meta"
        return weight.dtype
    return torch.get_autocast_dtype(kind)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """For code that chooses its types itself."""
    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _to(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else x.to(dtype)


def _pieces(x: Tensor, weight: Tensor, stride: int) -> Iterator[tuple[Tensor, slice, Tensor]]:
    """Of (rows, C) input and (D, C, k) weight: views (M, w · C), the output rows each adds to, (D, w · C)."""
    channels, kernel = weight.shape[1:]
    table = x.view(-1, stride * channels)
    for shift, begin in enumerate(range(0, kernel, stride)):
        width = min(stride, kernel - begin)
        part = weight[:, :, begin : begin + width].transpose(1, 2).flatten(1)
        yield table[shift:, : width * channels], slice(0, len(table) - shift), part


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """(rows, C) -> (rows / stride, D); a clip's last rows are junk where kernel > stride."""
    out: Tensor | None = None
    for view, rows, part in _pieces(x, weight, stride):
        if out is None:
            out = view @ part.T if bias is None else torch.addmm(bias, view, part.T)
        else:
            torch.addmm(out[rows], view, part.T, out=out[rows])
    assert out is not None  # noqa: S101
    return out


def convolve_backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Gradients of `convolve`'s input and weight."""
    grad_x, grad_parts = torch.empty_like(x), []
    table = grad_x.view(-1, stride * x.shape[1])
    for shift, (view, rows, part) in enumerate(_pieces(x, weight, stride)):
        own = grad[rows]
        target = table[shift:, : view.shape[1]]
        if shift == 0 and view.shape[1] == table.shape[1]:
            torch.mm(own, part, out=table)
        elif shift == 0:  # a kernel below the stride
            table.zero_()
            target.copy_(own @ part)
        else:
            torch.addmm(target, own, part, out=target)
        grad_parts.append((own.T @ view).unflatten(1, (-1, weight.shape[1])).transpose(1, 2))
    return grad_x, torch.cat(grad_parts, dim=2).to(weight.dtype)


class _Next(torch.autograd.Function):
    """Norm, GELU and convolution of a layer's (rows, C) output."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, norm: Norm, stride: int, weight: Tensor, bias: Tensor | None, *_: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(y, weight, norm.weight, norm.bias)
        ctx.stride, ctx.eps, ctx.biased = stride, norm.eps, bias is not None
        x, _ = norm.gelu(y)
        return convolve(x, weight.to(y.dtype), _to(bias, y.dtype), stride)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        y, weight, norm_weight, norm_bias = ctx.saved_tensors
        norm = Norm(norm_weight, norm_bias, ctx.eps)
        x, z = norm.gelu(y)
        grad = grads[0].contiguous()
        grad_x, grad_weight = convolve_backward(grad, x, weight.to(y.dtype), ctx.stride)
        del x
        grad_y, *of_norm = norm.backward(grad_x, y, z)
        grad_bias = grad.sum(0, dtype=torch.float32).to(weight.dtype) if ctx.biased else None
        return grad_y, None, None, grad_weight.to(weight.dtype), grad_bias, *of_norm


class _FirstTwo(torch.autograd.Function):
    """The first layer from (B, rows, k) windows, its norm and GELU, and the second layer's convolution."""

    @staticmethod
    def forward(
        ctx: Any, windows: Tensor, first: Tensor, shift: Tensor, norm: Norm, stride: int, weight: Tensor,
        bias: Tensor | None, *_: Tensor | None,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(windows, first, shift, weight, norm.weight, norm.bias)
        ctx.stride, ctx.eps, ctx.biased = stride, norm.eps, bias is not None
        narrow, narrow_bias = weight.to(windows.dtype), _to(bias, windows.dtype)
        parts = []
        for clips in _chunks(windows, first.shape[2]):
            x, _ = norm.gelu(_first(windows, first, shift, clips))
            parts.append(convolve(x.flatten(0, 1), narrow, narrow_bias, stride))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        windows, first, shift, weight, norm_weight, norm_bias = ctx.saved_tensors
        norm = Norm(norm_weight, norm_bias, ctx.eps)
        narrow = weight.to(windows.dtype)
        grad = grads[0].contiguous()
        rows = windows.shape[1] // ctx.stride
        grad_first, grad_shift = torch.zeros_like(first), torch.zeros_like(shift)
        grad_windows = torch.zeros_like(windows) if ctx.needs_input_grad[0] else None
        totals: list[Tensor] = []
        for clips in _chunks(windows, first.shape[2]):
            y = _first(windows, first, shift, clips)
            x, z = norm.gelu(y)
            own = grad[clips.start * rows : clips.stop * rows]
            grad_x, grad_weight = convolve_backward(own, x.flatten(0, 1), narrow, ctx.stride)
            del x
            grad_y, *of_norm = norm.backward(grad_x.view_as(y), y, z)
            grad_first[clips] = (windows[clips].transpose(1, 2) @ grad_y).to(first.dtype)
            grad_shift[clips] = grad_y.sum(1, keepdim=True, dtype=torch.float32).to(shift.dtype)
            found = [grad_weight.to(weight.dtype), *(g for g in of_norm if g is not None)]
            if grad_windows is not None:
                grad_windows[clips] = grad_y @ first[clips].to(grad_y.dtype).transpose(1, 2)
            totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
        grad_bias = grad.sum(0, dtype=torch.float32).to(weight.dtype) if ctx.biased else None
        of_norm = totals[1:] or [None, None]
        return grad_windows, grad_first, grad_shift, None, None, totals[0], grad_bias, *of_norm


def _chunks(windows: Tensor, channels: int) -> Iterator[slice]:
    """Groups of clips whose first-layer output has a bounded size."""
    clips = max(1, CHUNK_VALUES.get(windows.device.type, 1 << 24) // max(1, windows.shape[1] * channels))
    for begin in range(0, len(windows), clips):
        yield slice(begin, min(begin + clips, len(windows)))


def _first(windows: Tensor, first: Tensor, shift: Tensor, clips: slice) -> Tensor:
    dtype = windows.dtype
    return torch.baddbmm(shift[clips].to(dtype), windows[clips], first[clips].to(dtype))


def first_two(
    windows: Tensor,
    first: Tensor,
    shift: Tensor,
    norm: Norm,
    stride: int,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Output of the second convolution before its norm.

    Args:
        windows: (B, rows, k) samples under each position of the first convolution; `stride` divides rows.
        first: (B, k, C) weights of the first convolution, per clip.
        shift: (B, 1, C) its biases, per clip.
        norm: after the first convolution.
        stride: of the second convolution.
        weight: (D, C, kernel) of the second convolution.
        bias: (D,).

    Returns:
        (B · rows / stride, D) in the windows' type.
    """
    with without_autocast(windows.device):
        y: Tensor = _FirstTwo.apply(windows, first, shift, norm, stride, weight, bias, norm.weight, norm.bias)
    return y


def next_layer(y: Tensor, norm: Norm, stride: int, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Norm and GELU of a convolution's (rows, C) output, then the next convolution: (rows / stride, D)."""
    with without_autocast(y.device):
        z: Tensor = _Next.apply(y, norm, stride, weight, bias, norm.weight, norm.bias)
    return z
