"""LoRA and AdaLoRA by Hugging Face's `peft`, on any encoder whose projections are called as modules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.finetune.peft.settings import PeftSettings
from sslbench.finetune.peft.sites import linear_targets
from sslbench.finetune.peft.tuning import Tuning

ADAPTER = "default"  # peft's name of an only adapter
PARTS = ("lora_A", "lora_B", "lora_E", "lora_dropout", "ranknum")
SENSITIVITIES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise SslbenchError("tune: lora and adalora need peft: pip install 'sslbench[peft]'") from None
    return peft


class Lora(Tuning):
    """Low-rank updates of linear layers (Hu et al., ICLR 2022)."""

    def __init__(self, upstream: nn.Module, settings: PeftSettings) -> None:
        super().__init__()
        self.targets = linear_targets(upstream, settings.targets)
        self.tuner = [self._inject(upstream, settings)]  # in a list: the upstream is no part of this module
        upstream.eval()
        modules = dict(upstream.named_modules())
        self.updates = nn.ModuleDict({
            name.replace(".", "/"): nn.ModuleDict(
                {part: found for part in PARTS if (found := _part(modules[name], part)) is not None}
            )
            for name in self.targets
        })  # fmt: skip

    def _inject(self, upstream: nn.Module, settings: PeftSettings) -> Any:
        peft = _peft()
        config = peft.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
            target_modules=self.targets, bias="none",
        )  # fmt: skip
        return peft.inject_adapter_in_model(config, upstream, ADAPTER)


class AdaLora(Lora):
    """Low-rank updates whose ranks move to where they matter (Zhang et al., ICLR 2023)."""

    def __init__(self, upstream: nn.Module, settings: PeftSettings, steps: int) -> None:
        if settings.initial_rank <= settings.rank:
            raise SslbenchError(
                f"adalora: initial_rank {settings.initial_rank} must exceed rank {settings.rank}"
            )
        self.steps = steps
        super().__init__(upstream, settings)
        self.orthogonality = settings.orthogonality

    def _inject(self, upstream: nn.Module, settings: PeftSettings) -> Any:
        peft = _peft()
        # ranks fall between a tenth and seven tenths of the training
        config = peft.AdaLoraConfig(
            target_r=settings.rank, init_r=settings.initial_rank, lora_alpha=settings.alpha,
            lora_dropout=settings.dropout, target_modules=self.targets, bias="none",
            total_step=self.steps, tinit=self.steps // 10, tfinal=math.ceil(0.3 * self.steps),
            deltaT=max(1, self.steps // 100),
        )  # fmt: skip
        return peft.AdaLoraModel(upstream, {ADAPTER: config}, ADAPTER)

    def penalty(self) -> torch.Tensor:
        """Mean distance of A·Aᵀ and Bᵀ·B from the identity, as peft computes it for its own models."""
        distances = []
        for update in self.updates.values():
            factors: Any = update
            a, b = factors["lora_A"].get_parameter(ADAPTER), factors["lora_B"].get_parameter(ADAPTER)
            for product in (a @ a.T, b.T @ b):
                distances.append((product - torch.eye(len(product), device=a.device)).norm())
        return self.orthogonality * torch.stack(distances).mean()

    def after_update(self, step: int) -> None:
        """Weigh the ranks, and mask those that go."""
        self.tuner[0].update_and_allocate(step)

    def facts(self) -> dict[str, float]:
        """The mean rank that is left."""
        kept = [int((e != 0).sum()) for name, e in self.named_parameters() if "lora_E" in name]
        return {"mean_rank": sum(kept) / len(kept)}

    def state(self) -> dict[str, Any]:
        """Sensitivities so far, and the ranks kept at the end."""
        allocator, config = self.tuner[0].rankallocator, self.tuner[0].peft_config[ADAPTER]
        stored = {name: dict(getattr(allocator, name)) for name in SENSITIVITIES}
        return {**stored, "rank_pattern": config.rank_pattern}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore them."""
        allocator, config = self.tuner[0].rankallocator, self.tuner[0].peft_config[ADAPTER]
        places = {name: parameter.device for name, parameter in self.tuner[0].model.named_parameters()}
        for name in SENSITIVITIES:
            setattr(allocator, name, {key: value.to(places[key]) for key, value in state[name].items()})
        config.rank_pattern = state["rank_pattern"]


class _Held(nn.Module):
    """A ParameterDict's parameters, under its key only."""

    def __init__(self, parameters: nn.ParameterDict) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)


def _part(module: nn.Module, part: str) -> nn.Module | None:
    found = getattr(module, part, None)
    if isinstance(found, nn.ParameterDict):
        return _Held(found)
    return found if isinstance(found, nn.Module) else None
