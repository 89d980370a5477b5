"""Dropout that costs little on a CPU, and attention with it.

torch draws one Bernoulli number per value there, a tenth of HuBERT's step, and keeps masks in fp32.
Here eight-byte draws are cut into 16-bit numbers, and masks are kept in one byte per value.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.nn.strided import without_autocast

LEVELS = 1 << 16


def keep_mask(shape: torch.Size, p: float, device: torch.device) -> tuple[Tensor, float]:
    """(shape) bool, False with probability p to within 2⁻¹⁷, and the factor that keeps the mean exactly."""
    dropped = min(max(round(p * LEVELS), 1), LEVELS - 1)
    count = shape.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    draws.random_(-(2**63), None)  # the full range
    values = draws.view(torch.int16)[:count].view(shape)
    return values >= dropped - LEVELS // 2, LEVELS / (LEVELS - dropped)


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


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, p: float
    ) -> Tensor:
        ctx.scale = query.shape[-1] ** -0.5
        scores = (query * ctx.scale) @ key.transpose(2, 3)
        if key_mask is not None:
            scores.masked_fill_(~key_mask, float("-inf"))
        weights = scores.softmax(-1)
        keep, ctx.factor = keep_mask(weights.shape, p, weights.device)
        ctx.save_for_backward(query, key, value, weights, keep)
        return ((weights * keep) @ value).mul_(ctx.factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, keep = ctx.saved_tensors
        grad = grads[0] * ctx.factor
        grad_value = (weights * keep).transpose(2, 3) @ grad
        grad_weights = (grad @ value.transpose(2, 3)).mul_(keep)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype).mul_(ctx.scale)
        return grad_scores @ key, grad_scores.transpose(2, 3) @ query, grad_value, None, None


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
    with without_autocast(query.device):
        y: Tensor = _Attention.apply(query, key, value, key_mask, p)
    return y
