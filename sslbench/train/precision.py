"""fp32, bf16 by autocast alone, and fp16 with a loss scale by k2SSL's rules."""

from __future__ import annotations

import sys
from typing import Any

import torch

from sslbench.train.settings import LoopSettings
from sslbench.train.watchdog import UnstableError

# icefall egs/librispeech/SSL pretrain.py: GradScaler(init_scale=1.0) with torch's growth, helped while small
GROWTH_UPDATES = 2000
HELP_EVERY = 100
HELP_BELOW = 8.0
WARN_BELOW, STOP_BELOW = 0.01, 1e-5


class Precision:
    """How a run computes, and the loss scale, which is part of its state.

    bf16 has fp32's range and needs no scale: pairing it with one drove scales to 1e29 (ESPnet's hubert1).
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        self.scale = 1.0
        self._good = 0
        self._healthy_step = 0
        self._warned = False

    @classmethod
    def of(cls, settings: LoopSettings, device: torch.device) -> Precision:
        """As the settings say."""
        return cls(settings.precision, device)

    @property
    def scaled(self) -> bool:
        """Whether losses are scaled, and overflowing gradients an everyday thing."""
        return self.name == "fp16"

    def autocast(self) -> Any:
        """Half precision for what stands it."""
        dtype = torch.float16 if self.scaled else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.name != "fp32")

    def adjust(self, step: int, finite: bool) -> None:
        """Learn from update `step` (from 0): half after an overflow, double after 2,000 good updates, and
        every 100 updates while below 8.

        Raises:
            UnstableError: the scale is so small that training has diverged.
        """
        if not self.scaled:
            return
        self._good = self._good + 1 if finite else 0
        if not finite:
            self.scale *= 0.5
        elif self._good == GROWTH_UPDATES:
            self.scale, self._good = self.scale * 2, 0
        if step % HELP_EVERY == HELP_EVERY - 1 and self.scale < HELP_BELOW:
            self.scale *= 2
        if self.scale < STOP_BELOW:
            raise UnstableError(
                f"step {step}: the gradient scale fell to {self.scale:.1e}: training has diverged; "
                "try precision: bf16 or a smaller lr",
                self._healthy_step,
            )
        if self.scale >= WARN_BELOW:
            self._healthy_step = step
        if self.scale < WARN_BELOW and not self._warned:
            self._warned = True
            print(f"warning: step {step}: the gradient scale is only {self.scale:.1e}", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """The scale and what it waits for."""
        return {"scale": self.scale, "good": self._good, "healthy_step": self._healthy_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.scale, self._good = state["scale"], state["good"]
        self._healthy_step = state["healthy_step"]
