"""Dropout that costs little on a CPU, and attention with it.

torch draws one Bernoulli number per value there, a tenth of HuBERT's step, and keeps masks in fp32. Here
eight-byte draws are cut into 16-bit numbers, and masks are kept in one byte per value: of integers, since a
product with bool is not vectorized there and takes six times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.nn.strided import without_autocast

LEVELS = 1 << 16
SLICE_SCORES = 1 << 20
"""Attention scores that exist at a time, if one head has no more: few enough for a CPU's cache."""


def keep_mask(shape: torch.Size, p: float, device: torch.device) -> tuple[Tensor, float]:
    """(shape) int8, 0 with probability p to within 2⁻¹⁷ and else 1, and the factor that keeps the mean."""
    dropped = min(max(round(p * LEVELS), 1), LEVELS - 1)
    count = shape.numel()
    values = _draws(-(-count // 4), device).view(torch.int16)[:count].view(shape)
    return values.ge_(dropped - LEVELS // 2).to(torch.int8), LEVELS / (LEVELS - dropped)


def _draws(count: int, device: torch.device) -> Tensor:
    """(count,) int64 over the full range, which torch's generator determines."""
    if device.type != "cpu" or torch.compiler.is_compiling():
        return torch.empty(count, dtype=torch.int64, device=device).random_(-(2**63), None)
    # a third of the time of torch's own generator, which only seeds this one
    source = np.random.PCG64DXSM(int(torch.randint(2**63 - 1, ())))
    return torch.from_numpy(source.random_raw(count).view(np.int64))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        keep, ctx.factor = keep_mask(x.shape, p, x.device)
        ctx.save_for_backward(keep)
        return (x * keep).mul_(ctx.factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return (grads[0] * ctx.saved_tensors[0]).mul_(ctx.factor), None


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`F.dropout`, by 16-bit draws on the CPU."""
    if not training or p == 0.0 or x.device.type != "cpu":
        return F.dropout(x, p, training)
    y: Tensor = _Dropout.apply(x, p)
    return y


def _slices(scores_of: Tensor) -> Iterator[tuple[int, slice]]:
    """Of (B, H, T, D): a clip and some of its heads, by turns."""
    clips, heads, frames, _ = scores_of.shape
    size = max(1, SLICE_SCORES // frames**2)
    return ((clip, slice(first, first + size)) for clip in range(clips) for first in range(0, heads, size))


def _weights(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """(h, T, D) twice -> (h, T, T) attention weights."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(1, 2)
    return (scores if bias is None else scores.add_(bias)).softmax(-1)


def _by_frame(x: Tensor) -> Tensor:
    """Empty (B, H, T, D) whose memory lies as (B, T, H, D), as projections before and after want it."""
    return torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


class _Attention(torch.autograd.Function):
    """Some heads at a time. Only masks are kept: computing weights again costs what storing them does."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float) -> Tensor:
        out, keeps = _by_frame(query), []
        for clip, heads in _slices(query):
            weights = _weights(query[clip, heads], key[clip, heads], None if bias is None else bias[clip])
            keep, ctx.factor = keep_mask(weights.shape, p, weights.device)
            out[clip, heads] = weights.mul_(keep) @ value[clip, heads]
            keeps.append(keep)
        ctx.save_for_backward(query, key, value, bias, *keeps)
        return out.mul_(ctx.factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, *keeps = ctx.saved_tensors
        grad = grads[0] * ctx.factor
        grad_query, grad_key, grad_value = (_by_frame(x) for x in (query, key, value))
        for (clip, heads), keep in zip(_slices(query), keeps, strict=True):
            q, k, v, g = (x[clip, heads] for x in (query, key, value, grad))
            weights = _weights(q, k, None if bias is None else bias[clip])
            grad_value[clip, heads] = (weights * keep).transpose(1, 2) @ g
            grad_weights = (g @ v.transpose(1, 2)).mul_(keep)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_query[clip, heads] = grad_scores @ k
            grad_key[clip, heads] = grad_scores.transpose(1, 2) @ q
        scale = query.shape[-1] ** -0.5
        return grad_query.mul_(scale), grad_key.mul_(scale), grad_value, None, None


def attention(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, p: float) -> Tensor:
    """Scaled dot-product attention with dropout of its weights.

    On CPUs the library's fused form has no dropout, and the other keeps three fp32 tensors of (B, H, T, T).

    Args:
        query: (B, H, T, D), as `key` and `value`.
        key: see `query`.
        value: see `query`.
        key_mask: (B, 1, 1, T) bool, True where attended to; None for everywhere.
        p: dropout; 0 outside training.
    """
    if p == 0.0 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=key_mask, dropout_p=p)
    bias = None  # adding is ten times as fast as filling by mask
    if key_mask is not None:
        bias = torch.zeros(key_mask.shape, dtype=query.dtype).masked_fill_(~key_mask, float("-inf"))
    with without_autocast(query.device):
        y: Tensor = _Attention.apply(query, key, value, bias, p)
    return y
