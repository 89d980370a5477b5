"""The two published ways to pretrain: ScaledAdam with Eden, AdamW with warm-up and polynomial decay."""

from __future__ import annotations

import torch
from torch import nn

from sslbench.optim.eden import Eden
from sslbench.optim.scaled_adam import ScaledAdam
from sslbench.pretrain.config import PretrainConfig
from sslbench.train.groups import parameter_groups
from sslbench.train.schedule import polynomial
from sslbench.train.updater import Updater

# ScaledAdam's published eps, 1e-8, belongs to a loss summed over some 16,000 masked frames; ours is a mean.
EPS_OF_MEAN_LOSS = 1e-12


def make_updater(model: nn.Module, config: PretrainConfig, world_size: int) -> Updater:
    """The optimizer of a run with its rates."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    params = [p for _, p in named]
    if config.optimizer == "scaled_adam":
        return _scaled_adam(named, params, config, world_size)
    groups = parameter_groups(named, config.weight_decay, config.lr_scales, config.no_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.base_lr, betas=config.betas, eps=1e-6)

    def set_rates(step: int, _: int) -> None:
        factor = polynomial(step, config.max_steps, config.warmup_steps, config.decay_power)
        for group in optimizer.param_groups:
            group["lr"] = config.base_lr * factor * group["lr_scale"]

    return Updater(optimizer, params, set_rates, config.clip_norm)


def _scaled_adam(
    named: list[tuple[str, nn.Parameter]],
    params: list[nn.Parameter],
    config: PretrainConfig,
    world_size: int,
) -> Updater:
    optimizer = ScaledAdam(named, lr=config.base_lr, betas=config.betas, eps=EPS_OF_MEAN_LOSS)
    eden = Eden(optimizer, config.lr_batches, config.lr_epochs, config.warmup_steps, config.warmup_start)
    hours_per_step = config.update_s(world_size) / 3600

    def set_rates(step: int, epoch: int) -> None:
        eden.step_epoch(step * hours_per_step if config.lr_epoch_unit == "hours" else epoch)
        eden.step_batch(step)

    return Updater(optimizer, params, set_rates, clip_norm=None)
