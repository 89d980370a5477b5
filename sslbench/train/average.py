"""The running average of the weights, and the average between two checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

State = Mapping[str, torch.Tensor]


class RunningAverage:
    """Mean of the weights over all updates so far, sampled every N updates (icefall's `model_avg`)."""

    def __init__(self, state: State, every: int) -> None:
        """Begin with these weights; `every` 0 keeps no average."""
        self.every = every
        self.value: dict[str, torch.Tensor] | None = None
        if every:
            self.value = {name: t.detach().clone() for name, t in state.items()}

    @torch.no_grad()
    def update(self, current: Callable[[], State], step: int) -> None:
        """Take in the weights after `step` updates; does nothing between the sampling points."""
        if self.value is None or step % self.every:
            return
        weight, state = self.every / step, current()
        for name, mean in self.value.items():
            if mean.is_floating_point():
                mean.lerp_(state[name].to(mean.dtype), weight)
            else:
                mean.copy_(state[name])

    def load(self, state: State | None) -> None:
        """Restore a stored average."""
        if self.value is not None and state is not None:
            for name, mean in self.value.items():
                mean.copy_(state[name])


def average_between(early: State, early_step: int, late: State, late_step: int) -> dict[str, torch.Tensor]:
    """Mean of the weights over the updates (early_step, late_step], from the two running averages there.

    The early updates, when the weights were still poor, drop out (icefall's
    `average_checkpoints_with_averaged_model`).
    """
    share = late_step / (late_step - early_step)
    return {
        name: (t.double() * share - early[name].double() * (share - 1)).to(t.dtype)
        if t.is_floating_point()
        else t
        for name, t in late.items()
    }
