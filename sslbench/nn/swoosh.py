"""Swoosh activations, alone and fused with the linear layer that follows.

swoosh(x) = ln(1 + e^(x - shift)) - 0.08 x - offset   (Zipformer, arXiv 2310.11230, section 3.4).
The fused form keeps only its input for the backward pass and recomputes the activation there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.integrations.k2 import kernels
from sslbench.nn.scheduled import FloatLike, current
from sslbench.nn.strided import compute_dtype, without_autocast

SLOPE = 0.08
LEFT = (4.0, 0.035)
"""(shift, offset) of SwooshL, used in feed-forward modules."""
RIGHT = (1.0, 0.313261687)
"""(shift, offset) of SwooshR, used in convolution modules; zero at zero."""


def swoosh(x: Tensor, shape: tuple[float, float]) -> Tensor:
    """The activation, in fp32 whatever the input's type."""
    x = x.float()
    y = F.softplus(x - shape[0])
    return y.sub_(x, alpha=SLOPE).sub_(shape[1]) if not y.requires_grad else y - SLOPE * x - shape[1]


def swoosh_and_slope(x: Tensor, shape: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The activation and its derivative, in fp32. Not for autograd to look into."""
    if fused := kernels(x):
        return fused.value_and_slope(x.float(), left=shape == LEFT)
    return swoosh(x, shape), (x.float() - shape[0]).sigmoid_().sub_(SLOPE)


def swoosh_l(x: Tensor) -> Tensor:
    """ln(1 + e^(x - 4)) - 0.08 x - 0.035."""
    return swoosh(x, LEFT)


def swoosh_r(x: Tensor) -> Tensor:
    """ln(1 + e^(x - 1)) - 0.08 x - 0.313261687."""
    return swoosh(x, RIGHT)


class _SwooshLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        keep: Tensor | None,
        shape: tuple[float, float],
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, keep)
        ctx.shape, ctx.dtype = shape, dtype
        fused = kernels(x)
        y = fused.value(x.float(), left=shape == LEFT) if fused else swoosh(x, shape)
        if keep is not None:
            y *= keep
        return F.linear(y.to(dtype), weight.to(dtype), bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, keep = ctx.saved_tensors
        g = grads[0].to(ctx.dtype)
        y, slope = swoosh_and_slope(x, ctx.shape)
        slope *= g @ weight.to(ctx.dtype)
        if keep is not None:
            y *= keep
            slope *= keep
        g = g.flatten(0, -2)
        grad_weight = g.T @ y.flatten(0, -2).to(ctx.dtype)
        grad_bias = g.sum(0).to(weight.dtype)
        return slope.to(x.dtype), grad_weight.to(weight.dtype), grad_bias, None, None, None


class SwooshLinear(nn.Linear):
    """Swoosh, dropout with one mask for all frames of a clip, and a linear layer.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        shape: `LEFT` or `RIGHT`.
        dropout: share of channels dropped in training.
        initial_scale: factor on the usual initial weights; biases start within a tenth of it.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        shape: tuple[float, float],
        dropout: FloatLike = 0.0,
        initial_scale: float = 1.0,
    ) -> None:
        super().__init__(in_features, out_features)
        scale_initial(self, initial_scale)
        self.shape = shape
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in_features) -> (B, T, out_features)."""
        p = current(self.dropout) if self.training else 0.0
        keep = None
        if p > 0:
            keep = (torch.rand(x.shape[0], 1, x.shape[-1], device=x.device) > p) / (1 - p)
        dtype = compute_dtype(self.weight)
        with without_autocast(x.device):
            y: Tensor = _SwooshLinear.apply(x, self.weight, self.bias, keep, self.shape, dtype)
        return y


def scale_initial(layer: nn.Linear, scale: float) -> nn.Linear:
    """Scale a new layer's weights; its biases become uniform within ±0.1 · scale."""
    with torch.no_grad():
        layer.weight *= scale
        if layer.bias is not None:
            layer.bias.uniform_(-0.1 * scale, 0.1 * scale)
    return layer
