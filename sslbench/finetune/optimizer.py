"""AdamW with a rate per group: the head, and an upstream that may be frozen at first."""

from __future__ import annotations

from typing import Any

import torch

from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.model import Recognizer
from sslbench.train.schedule import cosine
from sslbench.train.updater import Updater

FLOOR = {"cosine": 0.01, "constant": 1.0}


def make_updater(model: Recognizer, config: FinetuneConfig) -> Updater:
    """The optimizer of a run with its rates; an upstream's rise begins when it is thawed."""
    groups: list[dict[str, Any]] = []
    for name, peak, modules in (
        ("head", config.lr, [model.featurizer, model.head]),
        ("upstream", config.upstream_lr, [model.upstream] if model.upstream is not None else []),
    ):
        parameters = [p for module in modules for p in module.parameters()]
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
