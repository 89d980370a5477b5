"""ScaledAdam: Adam whose step is relative to each tensor's size, and which learns that size.

The optimizer of Zipformer (Yao et al. 2023, arXiv 2310.11230, section 3.5); settings and the order of
operations follow icefall's recipe, checked step by step in tests/optim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sslbench.errors import SslbenchError

# Until the first full period of gradient norms, the limit is estimated at these steps, and doubled.
EARLY_ESTIMATES = (10, 20, 40)
SIZE_STEP_LIMIT = 0.1


class ScaledAdam(torch.optim.Optimizer):
    """ScaledAdam over stacks of equally shaped tensors, so that few kernels serve many parameters.

    Never waits for the device except once in `clipping_period` steps. All state is in `state_dict()`, as
    tensors and plain numbers: a resumed run continues bit for bit.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        lr: float = 0.045,
        clipping_scale: float | None = 2.0,
        betas: tuple[float, float] = (0.9, 0.98),
        scalar_lr_scale: float = 0.1,
        eps: float = 1e-8,
        min_rms: float = 1e-5,
        max_rms: float = 3.0,
        scalar_max: float = 10.0,
        size_period: int = 4,
        clipping_period: int = 100,
    ) -> None:
        """Set up the optimizer; parameters that do not require gradients are left out.

        Args:
            named_parameters: as from `model.named_parameters()`; names serve messages.
            lr: relative step; usually much larger than Adam's, see `Eden`.
            clipping_scale: gradients are scaled so that their norm, weighted by the tensors' rms, stays below
                this multiple of the median over the last `clipping_period` steps; None never clips.
            betas: decay of the momentum and of the squared gradient.
            scalar_lr_scale: factor on `lr` for one-element parameters and for the tensors' sizes.
            eps: added to the root of the squared gradient.
            min_rms: tensors are treated as at least this large, and do not shrink below.
            max_rms: size updates do not push a tensor's rms above this.
            scalar_max: limit of one-element parameters' absolute value.
            size_period: steps between size updates.
            clipping_period: steps over which the median norm is taken.
        """
        named = [(name, p) for name, p in named_parameters if p.requires_grad]
        if not named:
            raise SslbenchError("ScaledAdam: no parameter requires a gradient")
        defaults = {
            "lr": lr, "clipping_scale": clipping_scale, "betas": betas, "scalar_lr_scale": scalar_lr_scale,
            "eps": eps, "min_rms": min_rms, "max_rms": max_rms, "scalar_max": scalar_max,
            "size_period": size_period, "clipping_period": clipping_period, "step": 0,
        }  # fmt: skip
        super().__init__([p for _, p in named], defaults)
        self.names = {p: name for name, p in named}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter; one without a gradient is taken to have a zero gradient.

        Raises:
            SslbenchError: more than half of the recent gradient norms were not finite.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            stacks = [
                _Stack(members, self.state[members[0]], group) for members in _by_shape(group["params"])
            ]
            if group["clipping_scale"] is not None:
                scale = self._clip_scale(group, stacks)
                for stack in stacks:
                    # where, because a zero scale must also remove infinities
                    stack.grad = torch.where(scale > 0, stack.grad * scale, 0.0)
            for stack in stacks:
                stack.update(group)
            group["step"] += 1
        return loss

    def _clip_scale(self, group: dict[str, Any], stacks: list[_Stack]) -> Tensor:
        """Factor in [0, 1] for all gradients of this step: (), on the parameters' device."""
        step, period = group["step"], group["clipping_period"]
        state = self.state[group["params"][0]]
        squares = [
            (s.grad * (group["scalar_lr_scale"] if s.scalar else s.state["rms"])).square().sum()
            for s in stacks
        ]
        norm = torch.stack(squares).sum().sqrt()
        if step == 0:  # not part of the history, as in the original
            state["norms"] = norm.new_zeros(period)
            state["norm_limit"] = torch.full_like(norm, torch.inf)
            return torch.where(norm.isfinite(), 1.0, 0.0)
        state["norms"][step % period] = norm
        early = step in EARLY_ESTIMATES and step < period
        if early or step % period == 0:
            seen = state["norms"].sort().values[-step if early else 0 :]
            median = seen[len(seen) // 4 * 2]
            if not median.isfinite():
                raise SslbenchError(
                    f"ScaledAdam, step {step}: half of the recent gradients are not finite; lower the lr"
                )
            state["norm_limit"] = median * (group["clipping_scale"] * (2.0 if early else 1.0))
        scale = (state["norm_limit"] / (norm + 1e-20)).clamp(max=1.0)
        return torch.where(norm.isfinite(), scale, 0.0)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict()`. Raises `SslbenchError` when it is of other parameters."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for members in _by_shape(group["params"]):
                saved = self.state.get(members[0], {}).get("square")
                if group["step"] and (saved is None or len(saved) != len(members)):
                    raise SslbenchError(f"ScaledAdam: saved state does not fit {self.names[members[0]]}")


def _by_shape(params: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[Any, list[Tensor]] = {}
    for p in params:
        groups.setdefault((p.dtype, p.device, p.shape), []).append(p)
    return list(groups.values())


class _Stack:
    """Equally shaped parameters as one (N, …) tensor, with their gradients and shared state."""

    def __init__(self, members: list[Tensor], state: dict[str, Any], group: dict[str, Any]) -> None:
        self.members = members
        self.state = state
        self.value = torch.stack(members).float()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in members]
        self.grad = torch.stack(grads).float()
        self.scalar = members[0].numel() == 1
        if "square" not in state:
            state["square"] = torch.zeros_like(self.value)
            state["momentum"] = torch.zeros_like(self.value)
            if not self.scalar:
                state["rms"] = self._rms()
                state["size_square"] = torch.zeros_like(state["rms"])
                state["size_grads"] = state["rms"].new_zeros(group["size_period"], *state["rms"].shape)

    def _over_tensor(self, x: Tensor, mean: bool) -> Tensor:
        dims = list(range(1, x.ndim))
        return x.mean(dims, keepdim=True) if mean else x.sum(dims, keepdim=True)

    def _rms(self) -> Tensor:
        return self._over_tensor(self.value.square(), mean=True).sqrt()

    def update(self, group: dict[str, Any]) -> None:
        """One step of all members."""
        beta1, beta2 = group["betas"]
        square = self.state["square"].mul_(beta2).addcmul_(self.grad, self.grad, value=1 - beta2)
        correction = 1 - beta2 ** (group["step"] + 1)
        # The original drops the correction once it is below one percent.
        root = (square / correction if correction < 0.99 else square).sqrt()
        delta = self.grad / root.add_(group["eps"])
        delta *= -group["lr"] * (group["scalar_lr_scale"] if self.scalar else 1.0)
        if not self.scalar:
            delta = self._size_relative(delta, group)
        momentum = self.state["momentum"].mul_(beta1).add_(delta, alpha=1 - beta1)
        torch._foreach_add_(
            self.members, [m.to(p.dtype) for m, p in zip(momentum, self.members, strict=True)]
        )
        if self.scalar:
            torch._foreach_clamp_min_(self.members, -group["scalar_max"])
            torch._foreach_clamp_max_(self.members, group["scalar_max"])

    def _size_relative(self, delta: Tensor, group: dict[str, Any]) -> Tensor:
        """Scale the step by the tensors' sizes, and every `size_period` steps add a change of size."""
        step, period = group["step"], group["size_period"]
        rms, grads = self.state["rms"], self.state["size_grads"]
        grads[step % period] = self._over_tensor(self.value * self.grad, mean=False)
        size_turn = step % period == period - 1
        if size_turn:
            rms.copy_(self._rms())
        delta = delta * rms.clamp(min=group["min_rms"])
        return delta + self.value * self._size_step(group) if size_turn else delta

    def _size_step(self, group: dict[str, Any]) -> Tensor:
        """Relative change of the tensors' sizes: (N, 1, …)."""
        rms, grads = self.state["rms"], self.state["size_grads"]
        beta = group["betas"][1] ** group["size_period"]
        square = self.state["size_square"].mul_(beta).add_(grads.square().mean(0), alpha=1 - beta)
        turn = (group["step"] + 1) // group["size_period"]
        lr = group["lr"] * group["scalar_lr_scale"] * (1 - beta**turn) ** 0.5
        change = -lr * grads.sum(0) / (square.sqrt() + group["eps"])
        change = change.masked_fill(rms < group["min_rms"], 0.0).clamp(-SIZE_STEP_LIMIT, SIZE_STEP_LIMIT)
        return torch.minimum(change, (group["max_rms"] - rms) / rms)
