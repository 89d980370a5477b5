"""AdamW with a rate per group: the head, and an upstream that may be frozen at first."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.model import Recognizer


class Updater:
    """Groups, schedule, clipping and the freeze-then-unfreeze step."""

    def __init__(self, model: Recognizer, config: FinetuneConfig) -> None:
        self.model, self.config = model, config
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
        self.optimizer = torch.optim.AdamW(groups)

    @property
    def lr(self) -> float:
        """The head's present rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def prepare(self, step: int) -> None:
        """Set rates, gradients and modes for update number `step` (from 0)."""
        first = self.config.upstream_freeze_steps
        for group in self.optimizer.param_groups:
            frozen = group["name"] == "upstream" and step < first
            start = first if group["name"] == "upstream" else 0
            group["lr"] = (
                0.0 if frozen else group["peak"] * self._factor(step - start, self.config.steps - start)
            )
        self.model.train()
        if self.model.upstream is not None:
            thawed = step >= first
            self.model.upstream.requires_grad_(thawed)
            self.model.upstream.train(thawed)  # before that, as repeatable as a frozen one
            self._tell_schedules(max(0, step - first))
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, loss: torch.Tensor) -> float:
        """Go back through a loss and update, unless the gradient is not finite: its norm before clipping."""
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.clip_norm))
        if math.isfinite(norm):
            self.optimizer.step()
        return norm

    def _factor(self, step: int, steps: int) -> float:
        """Linear rise over the first share of the steps, then half a cosine down to 1 %, or flat."""
        warmup = round(self.config.warmup_share * steps)
        if step < warmup:
            return (step + 1) / warmup
        if self.config.schedule == "constant":
            return 1.0
        done = (step - warmup) / max(1, steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def _tell_schedules(self, step: int) -> None:
        """Encoders with schedules count batches of 600 s from 0 again, as k2SSL's fine-tuning does."""
        encoder: Any = getattr(self.model.upstream, "model", None)
        if hasattr(encoder, "set_batch_count"):
            encoder.set_batch_count(step * self.config.max_duration_s / 600.0)
