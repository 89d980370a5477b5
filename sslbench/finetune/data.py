"""Labelled cuts: which can be used, and their batches as audio or as cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch.nn.utils.rnn import pad_sequence

from sslbench.data.loading import BatchLoader, SkipLog
from sslbench.data.manifests import open_manifest
from sslbench.data.sampling import BatchPlan, SamplingSettings
from sslbench.errors import SslbenchError
from sslbench.finetune.features import FeatureCache
from sslbench.finetune.vocab import Vocab, frames_needed


@dataclass
class Batch:
    """Clips with their transcripts: either audio, or a frozen upstream's states."""

    cuts: list[Cut]
    targets: list[list[int]]
    """Classes of each clip."""
    position: int
    """Number within the epoch."""
    epoch: int = 0
    """Pass over the data."""
    audio: torch.Tensor | None = None
    """(B, T) float32."""
    states: torch.Tensor | None = None
    """(B, F, L, D)."""
    lens: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    """(B,) samples of `audio`, or frames of `states`."""

    @property
    def seconds(self) -> float:
        """Audio in the batch, without padding."""
        return float(sum(cut.duration for cut in self.cuts))


def transcript(cut: Cut) -> str | None:
    """The text of a cut; None when it has no supervision or its supervision no text."""
    texts = [supervision.text for supervision in cut.supervisions]
    return None if not texts or None in texts else " ".join(texts)


def label_reader(path: Path | str, unit: str) -> Callable[[Cut], str]:
    """What to learn from a cut of a manifest: its transcript, or for `phone` its phones, spaces between."""
    if unit != "phone":
        return lambda cut: transcript(cut) or ""
    from sslbench.data.phones import phones_of, read_lexicon

    lexicon = read_lexicon(Path(path).parent)
    return lambda cut: " ".join(phones_of(cut, lexicon))


def read_labelled(path: Path | str, skip_log: SkipLog) -> list[Cut]:
    """The cuts of a manifest that have a transcript, which may be empty; others are named in the log.

    Raises:
        SslbenchError: missing manifest, or none of its cuts has a transcript.
    """
    kept = []
    for cut in open_manifest(path):
        skip_log.saw(1)
        if transcript(cut) is None:
            skip_log.add(cut.id, "has no transcript")
        else:
            kept.append(cut)
    if not kept:
        raise SslbenchError(f"{path}: no cut has a transcript; fine-tuning needs text")
    return kept


def fitting(
    texts: dict[str, str], cuts: list[Cut], vocab: Vocab, frames: Callable[[int], int], skip_log: SkipLog
) -> tuple[list[Cut], dict[str, list[int]]]:
    """The clips that are long enough for CTC to emit their transcript, and their classes.

    Transducers are held to it too: a clip that CTC cannot align is usually one with a wrong transcript.

    Args:
        texts: what was said, by cut id.
        cuts: the clips.
        vocab: turns texts into classes.
        frames: samples -> output frames.
        skip_log: told of the clips that are too short.

    Raises:
        SslbenchError: none is long enough, or too many are not.
    """
    kept, targets = [], {}
    for cut in cuts:
        classes = vocab.encode(texts[cut.id])
        needed, there = frames_needed(classes), frames(cut.num_samples)
        if needed > there:
            skip_log.add(cut.id, f"too short for CTC: {there} frames for {needed} symbols")
            continue
        targets[cut.id] = classes
        kept.append(cut)
    skip_log.check()
    if not kept:
        raise SslbenchError("finetune: no clip is long enough for its transcript; check the manifest")
    return kept, targets


class LabelledSet:
    """Cuts with their classes, in batches that depend only on (seed, epoch)."""

    def __init__(
        self,
        cuts: list[Cut],
        targets: dict[str, list[int]],
        max_duration_s: float,
        *,
        shuffle: bool = False,
        seed: int = 0,
        skip_log: SkipLog | None = None,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Set up.

        Args:
            cuts: the clips.
            targets: classes by cut id; a clip without any counts as silent (decoding needs none).
            max_duration_s: audio per batch, padding included.
            shuffle: a new order each epoch.
            seed: of the order.
            skip_log: told of unreadable clips.
            num_workers: audio reading processes.
            rank: this process, of `world_size`: each gets its own clips and as many batches, of which some
                may be empty.
            world_size: number of processes.
        """
        self.cuts, self.targets = cuts, targets
        self.skip_log = skip_log if skip_log is not None else SkipLog()
        self.settings = SamplingSettings(max_duration_s, shuffle, seed, rank=rank, world_size=world_size)
        self._workers = num_workers
        self._cache: FeatureCache | None = None

    @property
    def seconds(self) -> float:
        """Audio of all clips."""
        return float(sum(cut.duration for cut in self.cuts))

    def use_cache(self, cache: FeatureCache) -> None:
        """Take features from a cache; clips that it lacks were unreadable and are left out from now on."""
        self.cuts = [cut for cut in self.cuts if cut.id in cache]
        if not self.cuts:
            raise SslbenchError("finetune: no clip could be read; see skipped.jsonl")
        self._cache = cache

    def epoch(self, epoch: int, start: int = 0, alone: bool = False) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on; `alone`, those of all processes."""
        settings = replace(self.settings, rank=0, world_size=1) if alone else self.settings
        if self._cache is not None:
            yield from self._cached(self._cache, settings, epoch, start)
            return
        loader = BatchLoader(
            CutSet.from_cuts(self.cuts), settings.max_duration_s, shuffle=settings.shuffle,
            seed=settings.seed, skip_log=self.skip_log, num_workers=self._workers,
            rank=settings.rank, world_size=settings.world_size, keep_empty=settings.world_size > 1,
        )  # fmt: skip
        loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "done": start})
        for read in loader.epoch(epoch):
            targets = [self.targets.get(cut.id, []) for cut in read.cuts]
            yield Batch(read.cuts, targets, read.position, epoch, audio=read.audio, lens=read.audio_lens)

    def _cached(
        self, cache: FeatureCache, settings: SamplingSettings, epoch: int, start: int
    ) -> Iterator[Batch]:
        plan = BatchPlan(CutSet.from_cuts(self.cuts), settings)
        for position, cuts in enumerate(plan.epoch(epoch, start), start):
            targets = [self.targets.get(cut.id, []) for cut in cuts]
            states = [cache[cut.id] for cut in cuts] or [torch.zeros(0)]
            lens = torch.tensor([len(state) for state in states[: len(cuts)]])
            padded = pad_sequence(states, batch_first=True)
            yield Batch(cuts, targets, position, epoch, states=padded, lens=lens)


class LabelledStream:
    """Epoch after epoch of a set, and the position among its batches."""

    def __init__(self, data: LabelledSet) -> None:
        self.data = data
        self.epoch = self.done = 0

    def endless(self) -> Iterator[Batch]:
        """Yield batches from the position on. Raises `SslbenchError` when none can be read."""
        while True:
            found = self.done > 0
            for batch in self.data.epoch(self.epoch, self.done):
                self.done, found = batch.position + 1, True
                yield batch
            if not found:
                raise SslbenchError("finetune: no batch could be read; see skipped.jsonl")
            self.epoch, self.done = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """The position: batches yielded so far count as done."""
        return {"epoch": self.epoch, "done": self.done, "world_size": self.data.settings.world_size}

    def load_state_dict(self, state: dict[str, Any], reshard: bool = False) -> None:
        """Go to a stored position. Raises `SslbenchError` when it is of another number of processes."""
        now = self.data.settings.world_size
        if state["world_size"] != now:
            raise SslbenchError(
                f"data position: stored with world_size={state['world_size']}, now {now}; "
                f"resume with {state['world_size']}: fine-tuning does not deal out the rest of an epoch anew"
            )
        self.epoch, self.done = state["epoch"], state["done"]
