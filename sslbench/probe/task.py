"""The contract of a probe task: what `downstream/<task>/task.py` gives the engine.

`ProbeTask` is trained: a head on a learned sum of frozen layers, over a grid of learning rates. Subclass
`sslbench.probe.utterance.UtteranceTask` when the head is linear up to a mean over frames, and
`UntrainedTask` when nothing is learned and the grid is over something else (a layer).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lhotse.cut import Cut
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.probe.batching import batches
from sslbench.probe.files import EXACT, lot
from sslbench.probe.protocol import read_config
from sslbench.report.schema import Metric

if TYPE_CHECKING:
    from sslbench.probe.store import Store

PARTS = ("train", "dev", "test")


@dataclass(frozen=True)
class Example:
    """One clip (or window of a clip) with its answer."""

    cut: Cut
    """Where the audio is; two examples may share audio but not an id."""
    target: Any
    """What the task's own loss takes: label indices, or a tensor of frame labels."""
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
    """One row of a predictions file: a clip, or whatever the task scores (a trial, a recording)."""

    id: str
    hyp: str
    ref: str
    speaker: str


Parts = dict[str, list[Example]]
"""The examples of "train", "dev" and "test"."""


class ProbeTask(ABC):
    """A task on frozen features. Subclasses are `sslbench.downstream.<name>.task.Task`."""

    name: ClassVar[str]
    """Folder name, evaluation name of the row, directory of the run."""
    headline: ClassVar[str]
    """The metric that heads the row and, unless `selection` says otherwise, selects on dev."""
    higher_is_better: ClassVar[bool]
    """Of the headline and of `selection`."""
    pooled: ClassVar[bool] = False
    """The head is linear up to a mean over frames, so layer means suffice (exactly)."""
    searched: ClassVar[str] = "lr"
    """What the grid is over."""
    test_selected: ClassVar[bool] = False
    """The official protocol chooses the step and the learning rate on test; that score is added to the
    row as `<headline>_test_selected`, beside the one chosen on dev."""
    config_path: ClassVar[Path]
    """The task's `config.yaml`."""

    def __init__(self, tier: str) -> None:
        """Read the protocol of a tier."""
        self.tier = tier
        self.protocol, self.settings = read_config(self.config_path, tier)
        self.settings[EXACT] = tier == "full"
        self.labels: list[str] = []
        # samples per frame of the upstream; the engine sets it before it asks for a head or facts
        self.stride = 320

    @abstractmethod
    def prepare(self, root: Path) -> Parts:
        """The examples of train, dev and test; also sets `labels`.

        Args:
            root: corpus folder of manifests, or the root of the official layout.

        Raises:
            SslbenchError: the root lacks a split or labels; the message says which.
        """

    def folds(self, root: Path) -> dict[str, Parts]:
        """The runs that make up the task, by name; one without a name unless the task has folds.

        A clip that is in several folds must be the same example id there: its features are computed once.
        """
        return {"": self.prepare(root)}

    def waveform(self, wav: torch.Tensor) -> torch.Tensor:
        """What the protocol does to a (T,) clip before the upstream sees it, for example a gain."""
        return wav

    @abstractmethod
    def head(self, input_dim: int) -> nn.Module:
        """A fresh head: `head(features (B, F, D), lens (B,)) -> output`, a tensor with batch first.

        A loss that has weights of its own keeps them here; `head.training` tells training from evaluation.
        """

    def batches(self, examples: Sequence[Example], seed: int) -> Iterator[list[int]]:
        """Endless batches of positions in `examples` for training; the default follows the protocol."""
        return batches(len(examples), self.protocol.batch_clips, seed)

    @abstractmethod
    def loss(self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[Any]) -> torch.Tensor:
        """The batch's mean loss, scalar, from the head's output in training mode."""

    @abstractmethod
    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[Any]:
        """Each clip's answer from the head's output in eval mode: text, or what `predictions` takes."""

    def predictions(self, part: str, examples: Sequence[Example], answers: Sequence[Any]) -> list[Prediction]:
        """The rows of a predictions file from the answers on "dev" or "test", one per clip by default."""
        return [
            Prediction(example.id, str(answer), example.reference, example.speaker)
            for example, answer in zip(examples, answers, strict=True)
        ]

    @abstractmethod
    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        """The scores with intervals, the headline first."""

    def selection(self, predictions: Sequence[Prediction]) -> float:
        """The score that chooses step and grid point on dev."""
        return self.metrics(predictions)[self.headline].value

    def final_metrics(self, dev: Sequence[Prediction], test: Sequence[Prediction]) -> dict[str, Metric]:
        """The row's scores of the chosen grid point; for scores that tune something on dev."""
        return self.metrics(test)

    def s3prl_values(self, root: Path) -> Mapping[str, Any]:
        """What only the task knows of the holes in its `s3prl.yaml`, for data at `root`.

        Raises:
            SslbenchError: data that s3prl's runner cannot read.
        """
        return {}

    def facts(self) -> Mapping[str, Any]:
        """What else decides the result (for the identity of a run)."""
        return {"labels": self.labels}


class UntrainedTask(ProbeTask):
    """A task that learns nothing: answers come straight from the features, one set per grid point."""

    @abstractmethod
    def choices(self, layers: int) -> list[float]:
        """The grid, for example the layers' numbers; best one chosen on dev, named by `searched`."""

    @abstractmethod
    def answer(
        self, part: str, examples: Sequence[Example], store: Store, numbers: Sequence[int], choice: float
    ) -> list[Prediction]:
        """Prediction rows of a part.

        Args:
            part: "dev" or "test"; "train" may be empty.
            examples: of the part.
            store: `store.clip(number)` gives a clip's (L, F, D) features.
            numbers: of the examples in the store.
            choice: the grid point.
        """

    def layer_shares(self, layers: int, choice: float) -> list[float]:
        """What each layer contributes to a grid point; equal shares unless the task says otherwise."""
        return [1.0 / layers] * layers

    def head(self, input_dim: int) -> nn.Module:
        raise SslbenchError(f"{self.name}: has no head")

    def loss(self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[Any]) -> torch.Tensor:
        raise SslbenchError(f"{self.name}: has no loss")

    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[Any]:
        raise SslbenchError(f"{self.name}: decodes nothing")


def load_task(name: str, tier: str) -> ProbeTask:
    """A registered probe task. Raises `SslbenchError` when there is none, or it is no probe task."""
    from sslbench import registry

    made = registry.tasks()[name].load()
    if not (isinstance(made, type) and issubclass(made, ProbeTask)):
        probes = probe_names()
        alike = "".join(f"; did you mean {probe}?" for probe in probes if name in probe)
        raise SslbenchError(
            f"{name}: is no probe task on frozen features{alike} (those are: {', '.join(probes)})"
        )
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
    for example in sorted(examples, key=lambda e: lot(f"{seed}/{e.id}")):
        queues[example.speaker].append(example)
    chosen: list[Example] = []
    seconds = 0.0
    turn = 0
    while any(len(queue) > turn for queue in queues.values()):
        for speaker in sorted(queues, key=lambda s: lot(f"{seed + turn}/{s}")):
            if len(queues[speaker]) > turn and seconds < hours * 3600:
                chosen.append(queues[speaker][turn])
                seconds += chosen[-1].cut.duration
        turn += 1
    return chosen
