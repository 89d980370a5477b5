"""Balancer: a training-only gradient that keeps each channel's mean and size within limits.

Source: Zipformer (arXiv 2310.11230, appendix C.1). The penalty's gradient with respect to one channel is
a linear function of that channel, so it is written down here instead of being found by autograd.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sslbench.nn.scheduled import FloatLike, ScheduledFloat, chance, current

TINY = 1e-20


def _relative_mean(positive: float) -> float:
    """mean / std of a channel that is positive this share of the time; rough, as in the original."""
    x = 2 * positive - 1
    return 0.8139535143 * (math.log(1 + x + 1e-10) - math.log(1 - x + 1e-10)) / 2


class _Balance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: tuple[float, float], rms: tuple[float, float], strength: float, dim: int
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.settings = mean, rms, strength, dim
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        means, sizes, strength, dim = ctx.settings
        g, x = grads[0], x.float()
        dims = [d for d in range(x.ndim) if d != dim % x.ndim]
        # Of each channel; in two passes, for var_mean is many times slower over leading dimensions.
        mean = x.mean(dims, keepdim=True)
        var = (x - mean).square_().mean(dims, keepdim=True)
        square = (var + mean.square()).clamp(min=TINY)
        std, rms = var.clamp(min=TINY).sqrt(), square.sqrt()
        relative = mean / std
        # Penalty |relative - clamp| + |ln rms - ln clamp|; its gradient is a + b x, up to a positive factor.
        push_mean = (relative - relative.clamp(*means)).sign()
        push_size = (rms - rms.clamp(*sizes)).sign()
        cube = std**3
        a = push_mean * square / cube
        b = push_size / square - push_mean * mean / cube
        size = ((a + b * mean).square() + (b * std).square()).sqrt().clamp(min=TINY)
        factor = strength / size
        penalty = torch.addcmul(a * factor, b * factor, x)
        return torch.addcmul(g, g.abs(), penalty.to(g.dtype)), None, None, None, None


class Balancer(nn.Module):
    """Identity whose gradient pulls channels into limits, in a random share of training steps.

    Args:
        min_positive: least share of positive values.
        max_positive: largest share of positive values.
        min_abs: least mean absolute value.
        max_abs: largest mean absolute value.
        dim: the channel dimension.
        strength: of the pull, relative to each element's own gradient.
        share: of steps; None is 0.5 falling to 0.125 at batch 8000.
    """

    def __init__(
        self,
        min_positive: FloatLike = 0.05,
        max_positive: FloatLike = 0.95,
        min_abs: FloatLike = 0.2,
        max_abs: FloatLike = 100.0,
        dim: int = -1,
        strength: float = 0.04,
        share: FloatLike | None = None,
    ) -> None:
        super().__init__()
        self.min_positive, self.max_positive = min_positive, max_positive
        self.min_abs, self.max_abs = min_abs, max_abs
        self.dim, self.strength = dim, strength
        self.prob = ScheduledFloat((0.0, 0.5), (8000.0, 0.125), default=0.4) if share is None else share

    def forward(self, x: Tensor) -> Tensor:
        """The same tensor; the same object where nothing is to be done."""
        if not (self.training and x.requires_grad and chance(self.prob)):
            return x
        means = _relative_mean(current(self.min_positive)), _relative_mean(current(self.max_positive))
        to_rms = math.sqrt(math.pi / 2)  # of a Gaussian's mean absolute value
        sizes = to_rms * current(self.min_abs), to_rms * current(self.max_abs)
        y: Tensor = _Balance.apply(x, means, sizes, self.strength, self.dim)
        return y
