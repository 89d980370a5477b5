"""The contract of a probe task: what `downstream/<task>/task.py` gives the engine."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from lhotse.cut import Cut
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.probe.protocol import read_config
from sslbench.report.schema import Metric

PARTS = ("train", "dev", "test")


@dataclass(frozen=True)
class Example:
    """One clip with its answer."""

    cut: Cut
    """Where the audio is."""
    target: tuple[int, ...]
    """Label indices for the loss."""
    reference: str
    """The answer as text, for the score."""
    speaker: str
    """Groups clips in the bootstrap and in reduced tiers."""

    @property
    def id(self) -> str:
        """The cut's id."""
        return str(self.cut.id)


@dataclass(frozen=True)
class Prediction:
    """One row of a predictions file."""

    id: str
    hyp: str
    ref: str
    speaker: str


class ProbeTask(ABC):
    """A task on frozen features. Subclasses are `sslbench.downstream.<name>.task.Task`."""

    name: ClassVar[str]
    """Folder name, evaluation name of the row, directory of the run."""
    headline: ClassVar[str]
    """The metric that selects on dev and heads the row."""
    higher_is_better: ClassVar[bool]
    """Of the headline."""
    pooled: ClassVar[bool] = False
    """The head is linear up to a mean over frames, so layer means suffice (exactly)."""
    config_path: ClassVar[Path]
    """The task's `config.yaml`."""

    def __init__(self, tier: str) -> None:
        """Read the protocol of a tier."""
        self.tier = tier
        self.protocol, self.settings = read_config(self.config_path, tier)
        self.labels: list[str] = []

    @abstractmethod
    def prepare(self, root: Path) -> dict[str, list[Example]]:
        """The examples of train, dev and test from a corpus folder; also sets `labels`.

        Raises:
            SslbenchError: missing splits or annotations, saying which and where.
        """

    @abstractmethod
    def head(self, input_dim: int) -> nn.Module:
        """The protocol's head: forward(features (B, F, D), lens (B,)) → logits."""

    @abstractmethod
    def loss(
        self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[tuple[int, ...]]
    ) -> torch.Tensor:
        """The batch's mean loss, scalar."""

    @abstractmethod
    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[str]:
        """Each clip's answer as text."""

    @abstractmethod
    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        """The scores with intervals, the headline first."""

    def facts(self) -> Mapping[str, Any]:
        """What else decides the result (for the identity of a run)."""
        return {"labels": self.labels}


def load_task(name: str, tier: str) -> ProbeTask:
    """A registered probe task. Raises `SslbenchError` when there is none, or it is no probe task."""
    from sslbench import registry

    made = registry.tasks()[name].load()
    if not (isinstance(made, type) and issubclass(made, ProbeTask)):
        probes = ", ".join(probe_names())
        raise SslbenchError(f"{name}: is no probe task on frozen features; those are: {probes}")
    return made(tier)


def probe_names() -> list[str]:
    """The names of all registered probe tasks."""
    from sslbench import registry

    loaded = {entry.name: entry.load() for entry in registry.tasks()}
    return [name for name, made in loaded.items() if isinstance(made, type) and issubclass(made, ProbeTask)]


def limited(examples: Sequence[Example], hours: float | None, seed: int) -> list[Example]:
    """At most `hours` of audio: speakers in turn, each one's clips in a seeded order (nested in `hours`)."""
    if hours is None:
        return list(examples)
    queues: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda e: _draw(seed, e.id)):
        queues[example.speaker].append(example)
    chosen: list[Example] = []
    seconds = 0.0
    turn = 0
    while any(len(queue) > turn for queue in queues.values()):
        for speaker in sorted(queues, key=lambda s: _draw(seed + turn, s)):
            if len(queues[speaker]) > turn and seconds < hours * 3600:
                chosen.append(queues[speaker][turn])
                seconds += chosen[-1].cut.duration
        turn += 1
    return chosen


def _draw(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}/{text}".encode()).digest()
