"""Whiten: a training-only gradient that keeps a module's output from living in few directions.

Source: Zipformer (arXiv 2310.11230, appendix C.2). With S the covariance of a group of C channels, the
metric is mean(diag S²) / mean(diag S)², 1 for white features. Its gradient is X (S - tr(S²)/tr(S) · I), up
to a positive factor that the scaling removes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslbench.nn.scheduled import FloatLike, chance, current

TINY = 1e-20


def _covariance(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Centred (G, N, C / G) features in fp32 of a (…, C) tensor, and their (G, C / G, C / G) products."""
    x = x.float().flatten(0, -2).unflatten(-1, (groups, -1)).transpose(0, 1)
    x = x - x.mean(1, keepdim=True)
    return x, x.transpose(1, 2) @ x


def _traces(products: Tensor) -> tuple[Tensor, Tensor]:
    """Means of diag(S) and diag(S²) over all channels: scalars."""
    channels = products.shape[0] * products.shape[1]
    return products.diagonal(dim1=1, dim2=2).sum() / channels, products.square().sum() / channels


def whitening_metric(x: Tensor, groups: int = 1) -> Tensor:
    """1 when all eigenvalues of the covariance are equal, larger otherwise. Scalar."""
    mean, mean_square = _traces(_covariance(x, groups)[1])
    return mean_square / (mean.square() + TINY)


class _Penalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Whiten) -> Tensor:
        ctx.save_for_backward(x)
        ctx.module, ctx.limit = module, current(module.whitening_limit)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,), g, module = ctx.saved_tensors, grads[0], ctx.module
        centred, products = _covariance(x, module.groups)
        mean, mean_square = _traces(products)
        outside = mean_square / (mean.square() + TINY) >= ctx.limit
        module.outside = outside.to("cpu", non_blocking=True)
        direction = products / (mean.square() + TINY)
        shrink = mean_square / (mean.pow(3) + TINY)
        direction.diagonal(dim1=1, dim2=2).sub_(shrink)
        penalty = (centred @ direction).transpose(0, 1).reshape(g.shape)
        scale = torch.where(outside, module.strength * g.float().norm() / (penalty.norm() + TINY), 0.0)
        return g + (penalty * scale).to(g.dtype), None


class Whiten(nn.Module):
    """Identity whose gradient whitens, in a share of steps that depends on whether it was needed last time.

    Args:
        groups: channel groups that are whitened separately.
        limit: the metric below which nothing is done.
        strength: of the penalty's gradient, relative to the gradient that arrives.
        shares: of steps, when the last look was within the limit and when it was not.
    """

    def __init__(
        self,
        limit: FloatLike,
        groups: int = 1,
        strength: float = 0.01,
        shares: tuple[float, float] = (0.025, 0.25),
    ) -> None:
        super().__init__()
        self.whitening_limit = limit
        self.groups, self.strength, self.shares = groups, strength, shares
        self.outside = torch.tensor(True)
        """On the CPU; part of a resumed run's state, see `whiten_state`."""

    def forward(self, x: Tensor) -> Tensor:
        """The same tensor."""
        if not (self.training and x.requires_grad and chance(self.shares[bool(self.outside)])):
            return x
        y: Tensor = _Penalise.apply(x, self)
        return y


def whiten_state(root: nn.Module) -> Tensor:
    """Which of a model's Whiten modules were outside their limits at their last look: (N,) bool."""
    return torch.tensor([bool(m.outside) for m in root.modules() if isinstance(m, Whiten)])


def load_whiten_state(root: nn.Module, state: Tensor) -> None:
    """Restore `whiten_state`."""
    modules = [m for m in root.modules() if isinstance(m, Whiten)]
    for module, outside in zip(modules, state.clone(), strict=True):
        module.outside = outside
