"""AdamW with a rate per group: the head, what tuning adds, and an upstream that may be frozen at first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.model import Recognizer
from sslbench.finetune.peft.sites import blocks
from sslbench.train.schedule import cosine
from sslbench.train.updater import Updater

FLOOR = {"cosine": 0.01, "constant": 1.0}


def make_updater(model: Recognizer, config: FinetuneConfig) -> Updater:
    """The optimizer of a run with its rates; an upstream's rise begins when it is thawed."""
    groups: list[dict[str, Any]] = []
    for name, peak, parameters in _parts(model, config):
        for decay, chosen in (
            (config.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "peak": peak, "name": name})
    optimizer = torch.optim.AdamW(groups)

    def set_rates(step: int, _: int) -> None:
        for group in optimizer.param_groups:
            first = config.upstream_freeze_steps if group["name"] == "upstream" else 0
            group["lr"] = 0.0 if step < first else group["peak"] * factor(step - first, config.steps - first)

    def factor(step: int, steps: int) -> float:
        return cosine(step, steps, round(config.warmup_share * steps), FLOOR[config.schedule])

    params = [p for group in optimizer.param_groups for p in group["params"]]
    return Updater(optimizer, params, set_rates, config.clip_norm)


def _parts(model: Recognizer, config: FinetuneConfig) -> Iterator[tuple[str, float, list[nn.Parameter]]]:
    """(name, peak rate, parameters) of everything that learns."""
    yield "head", config.lr, [*model.featurizer.parameters(), *model.head.parameters()]
    added = [p for p in model.tuning.parameters() if p.requires_grad]
    if added:
        yield "tuning", config.adapter_lr, added
    if model.upstream is not None:
        for depth, parameters in by_depth(model.upstream, config.layer_lr_decay):
            yield "upstream", config.upstream_lr * config.layer_lr_decay**depth, parameters


def by_depth(upstream: nn.Module, decay: float) -> list[tuple[int, list[nn.Parameter]]]:
    """Parameters by their distance from the output, in layers; what lies before all layers is farthest.

    Without decay, all of them at distance 0, in the module's order. What lies behind or between the layers
    (a closing norm, a downsampling) counts as the last layer.

    Raises:
        SslbenchError: a decay for an upstream whose layers cannot be told by their names.
    """
    if decay == 1.0:
        return [(0, list(upstream.parameters()))]
    layers = [name + "." for name in blocks(upstream)]
    groups: dict[int, list[nn.Parameter]] = {}
    named = list(upstream.named_parameters())
    first = next(number for number, (name, _) in enumerate(named) if name.startswith(layers[0]))
    for number, (name, parameter) in enumerate(named):
        inside = [index for index, layer in enumerate(layers) if name.startswith(layer)]
        depth = len(layers) - 1 - inside[0] if inside else len(layers) if number < first else 0
        groups.setdefault(depth, []).append(parameter)
    return sorted(groups.items())
