"""What the engine is told about a training: a job brings model, data and loss, and is asked the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from sslbench.nn.upstream import LossOutput
from sslbench.train.updater import Updater

Raw = TypeVar("Raw")
"""What a stream yields, on the CPU."""
Inputs = TypeVar("Inputs")
"""What the loss is computed from, on the device."""

Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass
class Batch(Generic[Inputs]):
    """What one forward and backward pass is made of."""

    inputs: Inputs
    """On the device, but for what is decided by value, which is best decided on the CPU."""
    ids: list[str]
    """Utterances, for messages and the log. Without any, the batch only keeps processes in step: its loss
    and gradients count nothing."""
    audio_s: float
    """Audio that the model sees, without padding."""
    epoch: int
    """Pass over the data."""


class Stream(Protocol):
    """Batches of epoch after epoch, and the position among them: what was yielded counts as done."""

    def endless(self) -> Iterator[Any]:
        """Yield batches from the position on; every process of a training gets as many."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position, as plain values; `epoch` is one of them."""
        ...

    def load_state_dict(self, state: dict[str, Any], reshard: bool = False) -> None:
        """Go to a stored position; `reshard` allows one of another number of processes."""
        ...


class Job(ABC, Generic[Raw, Inputs]):
    """A training. Subclasses set the four attributes and write `collate`, `loss` and `validate`."""

    name: str
    """What progress lines call it."""
    seed_place: str = "batch"
    """Separates this job's random numbers from those of others with the same seed."""
    model: nn.Module
    """Its `state_dict` is what checkpoints hold."""
    stream: Stream
    """Training data."""
    updater: Updater
    """Optimizer and rates."""

    @abstractmethod
    def collate(self, raw: Raw) -> Batch[Inputs]:
        """Move a batch of the stream to the device; cropping and the like draw from seeded generators."""

    @abstractmethod
    def loss(self, inputs: Inputs) -> LossOutput:
        """The loss summed over a batch, and the frames (or symbols) that it is a sum over."""

    def begin(self, step: int) -> None:
        """Called once after the state is restored, before the first update, which is number `step`."""

    def before_update(self, step: int) -> None:
        """Set modes, frozen parts and the model's own schedules for update `step` (from 0)."""
        self.model.train()

    def validate(self, step: int, autocast: Autocast) -> dict[str, float]:
        """Figures on held-out data after `step` updates; called on every process, without gradients.

        Named `dev_…`; empty for none. May draw random numbers freely: training seeds before every batch.
        """
        return {}

    def facts(self, step: int) -> dict[str, float]:
        """What a log line says beside loss, rate and cost."""
        return {}

    def state(self) -> dict[str, Any]:
        """What the job itself needs to go on, as plain values and tensors."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state()`."""

    def rank_state(self) -> dict[str, torch.Tensor]:
        """As `state`, but each process's own; the same names and shapes everywhere."""
        return {}

    def load_rank_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore `rank_state()`."""

    def finish(self, facts: dict[str, Any]) -> None:
        """Called on the main process when the last update is made and stored.

        Args:
            facts: `steps`, `wall_s`, `audio_s`, and the latest figures (`train_loss`, `dev_…`).
        """
