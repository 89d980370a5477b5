"""Eden: a learning rate that falls with both batches and epochs, after a linear warm-up.

lr = base · ((b² + B²) / B²)^-¼ · ((e² + E²) / E²)^-¼ · warmup(b)   (Yao et al. 2023, arXiv 2310.11230).
"""

from __future__ import annotations

from typing import Any

import torch


class Eden:
    """Sets every group's `lr`; the base rate is what the optimizer was built with."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        lr_batches: float,
        lr_epochs: float,
        warmup_batches: float = 500.0,
        warmup_start: float = 0.5,
    ) -> None:
        """Attach to an optimizer and set its first rate.

        Args:
            optimizer: its groups' present `lr` is the base rate.
            lr_batches: B, batches after which the rate falls noticeably.
            lr_epochs: E, epochs (or hours of audio, if `step_epoch` gets those) after which it falls.
            warmup_batches: length of the linear warm-up; 0 for none.
            warmup_start: factor at batch 0, in [0, 1].
        """
        self.optimizer = optimizer
        self.lr_batches = lr_batches
        self.lr_epochs = lr_epochs
        self.warmup_batches = warmup_batches
        self.warmup_start = warmup_start
        self.batch = 0
        self.epoch: float = 0
        for group in optimizer.param_groups:
            group.setdefault("base_lr", group["lr"])
        self._set()

    @property
    def factor(self) -> float:
        """The present rate over the base rate."""
        by_batch = (self.batch**2 / self.lr_batches**2 + 1) ** -0.25
        by_epoch = (self.epoch**2 / self.lr_epochs**2 + 1) ** -0.25
        warmup = 1.0
        if self.batch < self.warmup_batches:
            warmup = self.warmup_start + (1 - self.warmup_start) * self.batch / self.warmup_batches
        return by_batch * by_epoch * warmup

    def _set(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.factor

    def step_batch(self, batch: int | None = None) -> None:
        """Go to this batch, counted from the start of training; the next one by default."""
        self.batch = self.batch + 1 if batch is None else batch
        self._set()

    def step_epoch(self, epoch: float | None = None) -> None:
        """Go to this epoch, counted from 0; the next one by default."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """Where training is; the base rate is kept in the optimizer's groups."""
        return {"batch": self.batch, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a saved place."""
        self.batch, self.epoch = state["batch"], state["epoch"]
        self._set()
