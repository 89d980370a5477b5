"""Labelled cuts for CTC: which can be used, and their batches as audio or as cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch.nn.utils.rnn import pad_sequence

from sslbench.data.loading import BatchLoader, SkipLog
from sslbench.data.manifests import open_manifest
from sslbench.data.sampling import BatchPlan, SamplingSettings
from sslbench.errors import SslbenchError
from sslbench.finetune.features import FeatureCache
from sslbench.finetune.vocab import CharVocab, frames_needed


@dataclass
class Batch:
    """Clips with their transcripts: either audio, or a frozen upstream's states."""

    cuts: list[Cut]
    targets: list[list[int]]
    """Classes of each clip."""
    position: int
    """Number within the epoch."""
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
    cuts: list[Cut], vocab: CharVocab, frames: Callable[[int], int], skip_log: SkipLog
) -> tuple[list[Cut], dict[str, list[int]]]:
    """The clips that are long enough for CTC to emit their transcript, and their classes.

    Args:
        cuts: with transcripts.
        vocab: turns them into classes.
        frames: samples -> output frames.
        skip_log: told of the clips that are too short.

    Raises:
        SslbenchError: none is long enough, or too many are not.
    """
    kept, targets = [], {}
    for cut in cuts:
        classes = vocab.encode(transcript(cut) or "")
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
        """
        self.cuts, self.targets = cuts, targets
        self.skip_log = skip_log if skip_log is not None else SkipLog()
        self.settings = SamplingSettings(max_duration_s, shuffle, seed)
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

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        if self._cache is not None:
            yield from self._cached(self._cache, epoch, start)
            return
        loader = BatchLoader(
            CutSet.from_cuts(self.cuts), self.settings.max_duration_s, shuffle=self.settings.shuffle,
            seed=self.settings.seed, skip_log=self.skip_log, num_workers=self._workers,
        )  # fmt: skip
        loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "done": start})
        for read in loader.epoch(epoch):
            targets = [self.targets.get(cut.id, []) for cut in read.cuts]
            yield Batch(read.cuts, targets, read.position, audio=read.audio, lens=read.audio_lens)

    def _cached(self, cache: FeatureCache, epoch: int, start: int) -> Iterator[Batch]:
        plan = BatchPlan(CutSet.from_cuts(self.cuts), self.settings)
        for position, cuts in enumerate(plan.epoch(epoch, start), start):
            states = [cache[cut.id] for cut in cuts]
            yield Batch(
                cuts,
                [self.targets.get(cut.id, []) for cut in cuts],
                position,
                states=pad_sequence(states, batch_first=True),
                lens=torch.tensor([len(state) for state in states]),
            )
