"""Learning rates, and the count that the models' own schedules run on."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sslbench.optim.eden import Eden
from sslbench.optim.scaled_adam import ScaledAdam
from sslbench.pretrain.config import PretrainConfig

BATCH_COUNT_EVERY = 10  # updates, as k2SSL sets it

# ScaledAdam's published eps, 1e-8, belongs to a loss summed over some 16,000 masked frames; ours is a mean.
EPS_OF_MEAN_LOSS = 1e-12


def batch_count(step: int, config: PretrainConfig, world_size: int) -> float:
    """Duration-adjusted batches done before an update, in steps of 10 updates.

    k2SSL (icefall `egs/librispeech/SSL`, `get_adjusted_batch_count`): batches times the nominal audio of
    a batch over all processes, over a reference of 600 s. Models anneal dropout and skips by this count.
    """
    held = step // BATCH_COUNT_EVERY * BATCH_COUNT_EVERY
    return held * config.accum * config.max_duration_s * world_size / config.ref_duration_s


class Updater:
    """An optimizer with its learning-rate schedule."""

    def __init__(self, model: nn.Module, config: PretrainConfig, world_size: int) -> None:
        self.config = config
        self.hours_per_step = config.accum * config.max_duration_s * world_size / 3600
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.params = [p for _, p in named]
        self.eden: Eden | None = None
        self.optimizer: torch.optim.Optimizer
        if config.optimizer == "scaled_adam":
            self.optimizer = ScaledAdam(named, lr=config.base_lr, betas=config.betas, eps=EPS_OF_MEAN_LOSS)
            self.eden = Eden(
                self.optimizer, config.lr_batches, config.lr_epochs, config.warmup_steps, config.warmup_start
            )
        else:
            matrices = [p for p in self.params if p.ndim > 1]
            vectors = [p for p in self.params if p.ndim <= 1]
            groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
            self.optimizer = torch.optim.AdamW(
                groups, lr=config.base_lr, betas=config.betas, eps=1e-6, weight_decay=config.weight_decay
            )

    @property
    def lr(self) -> float:
        """The present rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def gradient_norm(self) -> torch.Tensor:
        """The gradients' norm, clipping them on the way where the optimizer does not itself: ()."""
        limit = self.config.clip_norm if self.eden is None else float("inf")
        return nn.utils.clip_grad_norm_(self.params, limit)

    def scale_gradients(self, factor: float) -> None:
        """Multiply all gradients."""
        for p in self.params:
            if p.grad is not None:
                p.grad.mul_(factor)

    def step(self, step: int, epoch: int) -> None:
        """Make update number `step` (from 0) in pass `epoch` over the data, and clear the gradients."""
        if self.eden is not None:
            by_hours = self.config.lr_epoch_unit == "hours"
            self.eden.step_epoch(step * self.hours_per_step if by_hours else epoch)
            self.eden.step_batch(step)
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.base_lr * polynomial(step, self.config)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state; rates follow from the step."""
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.optimizer.load_state_dict(state["optimizer"])


def polynomial(step: int, config: PretrainConfig) -> float:
    """fairseq's `polynomial_decay`: linear warm-up, then (1 - progress)^power down to 0 at the last step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    left = 1 - (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    return float(max(0.0, left) ** config.decay_power)
