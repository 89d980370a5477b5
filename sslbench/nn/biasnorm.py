"""BiasNorm, and gradients that keep parameters within limits (Zipformer, arXiv 2310.11230, section 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslbench.nn.scheduled import chance

LIMIT_SHARE = 0.6


class _BiasNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        wide = x.float()  # nothing below is narrowed by autocast
        square = (wide - bias).square_().mean(-1, keepdim=True)  # (B, T, 1)
        scale = square.rsqrt() * log_scale.exp()
        ctx.save_for_backward(x, bias, square, scale)
        return (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bias, square, scale = ctx.saved_tensors
        g, wide = grads[0].float(), x.float()
        # y = x s, s = e^l / sqrt(mean (x - b)^2), so ds/dx = -ds/db = -s (x - b) / (C mean)
        towards_scale = (g * wide).sum(-1, keepdim=True) * scale  # (B, T, 1), also the gradient of l
        pull = (wide - bias) * (towards_scale / (square * x.shape[-1]))
        grad_bias = pull.flatten(0, -2).sum(0)
        return (g * scale - pull).to(x.dtype), grad_bias, towards_scale.sum()


class _Limit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limits = low, high
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        g, (low, high) = grads[0], ctx.limits
        outwards = ((g > 0) & (x < low)) | ((g < 0) & (x > high))
        return torch.where(outwards, -g, g), None, None


def limit_value(x: Tensor, low: float, high: float) -> Tensor:
    """Identity; gradient signs that would drive values further outside [low, high] are turned round."""
    y: Tensor = _Limit.apply(x, low, high)
    return y


def limit_sometimes(x: Tensor, low: float, high: float, training: bool) -> Tensor:
    """`limit_value` in six of ten training steps, which is enough."""
    return limit_value(x, low, high) if training and chance(LIMIT_SHARE) else x


class BiasNorm(nn.Module):
    """x · e^s / rms(x - b) over channels, without an epsilon; s is kept in ±1.5 while training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.randn(channels) * 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) -> (…, C)."""
        log_scale = limit_sometimes(self.log_scale, -1.5, 1.5, self.training)
        y: Tensor = _BiasNorm.apply(x, self.bias, log_scale)
        return y
