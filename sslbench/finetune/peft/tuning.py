"""What a way of tuning does to a training: one small interface, and the choice by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sslbench.finetune.peft.settings import PeftSettings

BACKBONE_RUNS = ("full", "lora", "adalora", "houlsby", "conv_adapter")
"""Ways whose gradient goes through the upstream: its features cannot be computed once and kept."""


class Tuning(nn.Module):
    """Parameters added to a frozen upstream. This base adds none.

    Only what is added is part of the module (and of checkpoints); the upstream keeps its own weights.
    """

    def use_lens(self, audio_lens: torch.Tensor) -> None:
        """Told the (B,) samples of the clips before each pass through the upstream."""

    def penalty(self) -> torch.Tensor | None:
        """Added to the loss per symbol; None for nothing."""
        return None

    def after_update(self, step: int) -> None:
        """Called when the optimizer has made update number `step` (from 0), gradients still there."""

    def facts(self) -> dict[str, float]:
        """What `DONE` says about the result."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside parameters."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state()`."""


def make_tuning(name: str, upstream: nn.Module, settings: PeftSettings, steps: int) -> Tuning:
    """Add what `tune: name` adds to an upstream, in place.

    Args:
        name: a way of tuning.
        upstream: frozen.
        settings: sizes.
        steps: updates of the whole training.

    Raises:
        SslbenchError: the upstream offers no place for it, or a package is missing.
    """
    if name == "houlsby":
        from sslbench.finetune.peft.adapters import HoulsbyAdapters

        return HoulsbyAdapters(upstream, settings)
    if name == "conv_adapter":
        from sslbench.finetune.peft.adapters import ConvAdapters

        return ConvAdapters(upstream, settings)
    if name == "lora":
        from sslbench.finetune.peft.lora import Lora

        return Lora(upstream, settings)
    if name == "adalora":
        from sslbench.finetune.peft.lora import AdaLora

        return AdaLora(upstream, settings, steps)
    return Tuning()
