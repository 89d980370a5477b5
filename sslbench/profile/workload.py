"""The audio that speed and memory are measured on, and one step of inference or of pretraining on it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.nn.upstream import PretrainBatch, SSLModel
from sslbench.upstreams import load_upstream

LATE_BATCH_COUNT = 20_000.0
"""Modules with training schedules (for example Zipformer's Balancer) are timed in their steady state."""


@dataclass(frozen=True)
class Workload:
    """Some clips of equal length."""

    clips: int
    clip_s: float

    @property
    def audio_s(self) -> float:
        """Seconds of audio."""
        return self.clips * self.clip_s

    @property
    def name(self) -> str:
        """For example `4x5s`."""
        return f"{self.clips}x{self.clip_s:g}s"

    def wavs(self, seed: int = 0) -> list[torch.Tensor]:
        """Gaussian noise at speech level: `clips` tensors of (T,)."""
        generator = torch.Generator().manual_seed(seed)
        samples = round(self.clip_s * SAMPLE_RATE_HZ)
        return [0.1 * torch.randn(samples, generator=generator) for _ in range(self.clips)]


SINGLE = Workload(clips=1, clip_s=10.0)
"""Batch 1, for the real-time factor."""
BATCH = Workload(clips=4, clip_s=5.0)
"""A small batch, for throughput and for training steps."""


def build(name: str, ckpt: str | None, frozen: bool) -> nn.Module:
    """An upstream without the warning about random weights, also s3prl's: cost does not depend on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_upstream(name, ckpt, frozen=frozen, stand_in=True)


def device_of(module: nn.Module) -> torch.device:
    """Where its first parameter or buffer lies; the CPU for a module without any."""
    held = next(itertools.chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if held is None else held.device


def inference_step(upstream: nn.Module, workload: Workload) -> Callable[[], object]:
    """A call that runs the clips through the frozen upstream."""
    wavs = [wav.to(device_of(upstream)) for wav in workload.wavs()]

    def step() -> object:
        with torch.inference_mode():
            return upstream(wavs)

    return step


def why_no_training(upstream: nn.Module) -> str | None:
    """None when the pretraining loss can be run, else the reason in words."""
    model = getattr(upstream, "model", None)
    if not isinstance(model, SSLModel):
        return "is not a pretraining model of sslbench, so it has no training step here"
    if not isinstance(getattr(model.config, "num_units", None), int):
        return "has a configuration without num_units, so labels cannot be made for a training step"
    return None


def training_loss(upstream: nn.Module, workload: Workload, seed: int = 0) -> Callable[[], torch.Tensor]:
    """A call that computes the pretraining loss per frame, in training mode and on the model's device."""
    model: Any = upstream.model
    device = device_of(model)
    wavs = torch.stack(workload.wavs(seed)).to(device)  # (B, T)
    frames = -(-wavs.shape[1] // 320)  # labels come one per 20 ms, whatever the model's own stride is
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(model.config.num_units, (workload.clips, frames), generator=generator).to(device)
    lens = torch.full((workload.clips,), wavs.shape[1], device=device)
    batch = PretrainBatch(wavs, lens, labels, [f"noise-{index}" for index in range(workload.clips)])
    model.requires_grad_(True)
    model.train()
    model.set_batch_count(LATE_BATCH_COUNT)

    def loss() -> torch.Tensor:
        output = model(batch)
        mean: torch.Tensor = output.loss_sum / output.frames.clamp(min=1)
        return mean

    return loss


def training_step(upstream: nn.Module, workload: Workload, seed: int = 0) -> Callable[[], object]:
    """A call that runs the pretraining loss forward and backward, without an optimizer."""
    loss = training_loss(upstream, workload, seed)

    def step() -> object:
        upstream.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        return value

    return step


def update_steps(upstream: nn.Module, workload: Workload) -> list[Callable[[], object]]:
    """Two updates with AdamW: of one clip, which leaves gradients and optimizer states, then of all clips."""
    losses = [training_loss(upstream, clips) for clips in (Workload(1, workload.clip_s), workload)]
    optimizer = torch.optim.AdamW([p for p in upstream.parameters() if p.requires_grad])

    def update(loss: Callable[[], torch.Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return [partial(update, loss) for loss in losses]
