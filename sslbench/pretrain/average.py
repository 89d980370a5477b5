"""The running average of the weights, and the average between two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import torch

State = Mapping[str, torch.Tensor]


class RunningAverage:
    """Mean of the weights over all updates so far, sampled every N updates (icefall's `model_avg`)."""

    def __init__(self, state: State, every: int) -> None:
        self.every = every
        self.value = {name: t.detach().clone() for name, t in state.items()}

    @torch.no_grad()
    def update(self, state: State, step: int) -> None:
        """Take in the weights after `step` updates; does nothing between the sampling points."""
        if step % self.every:
            return
        weight = self.every / step
        for name, mean in self.value.items():
            if mean.is_floating_point():
                mean.lerp_(state[name].to(mean.dtype), weight)
            else:
                mean.copy_(state[name])

    def load(self, state: State) -> None:
        """Restore a stored average."""
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
