"""An optimizer with the rule that sets its rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

SetRates = Callable[[int, int], None]
"""(number of the update from 0, epoch) -> None; writes the groups' `lr`."""


class Updater:
    """What an update does once the gradients are there."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        params: list[nn.Parameter],
        set_rates: SetRates,
        clip_norm: float | None,
    ) -> None:
        """Put together.

        Args:
            optimizer: over `params`.
            params: in the order in which their norms are summed.
            set_rates: called before each update.
            clip_norm: largest gradient norm; None where the optimizer clips by itself.
        """
        self.optimizer, self.params = optimizer, params
        self.set_rates = set_rates
        self.clip_norm = float("inf") if clip_norm is None else clip_norm
        self.lr_factor = 1.0
        """On all rates; lowered when a run is rolled back."""

    @property
    def lr(self) -> float:
        """The first group's present rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def scale_gradients(self, factor: float) -> None:
        """Multiply all gradients."""
        if factor != 1.0:
            torch._foreach_mul_([p.grad for p in self.params if p.grad is not None], factor)

    def clip(self) -> float:
        """Clip the gradients; returns their norm before that."""
        return float(nn.utils.clip_grad_norm_(self.params, self.clip_norm))

    def step(self, step: int, epoch: int) -> None:
        """Make update number `step` (from 0) in pass `epoch` over the data, and drop the gradients."""
        self.set_rates(step, epoch)
        if self.lr_factor != 1.0:
            for group in self.optimizer.param_groups:
                group["lr"] *= self.lr_factor
        self.optimizer.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state; rates follow from the step."""
        return {"optimizer": self.optimizer.state_dict(), "lr_factor": self.lr_factor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_factor = state["lr_factor"]
