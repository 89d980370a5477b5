"""Batches of audio from manifests: read on the fly, bad files skipped and named, exactly resumable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch.nn.utils.rnn import pad_sequence

from sslbench.data.reading import read_cut
from sslbench.data.rows import Row, as_cut
from sslbench.data.sampling import BatchPlan, Dealt, SamplingSettings
from sslbench.data.skips import SkipLog
from sslbench.errors import AudioError, CorruptFileError, SslbenchError

__all__ = ["AudioBatch", "BatchLoader", "SkipLog", "read_batch", "read_cut"]


@dataclass
class AudioBatch:
    """Clips of similar length, zero-padded."""

    audio: torch.Tensor
    """(B, T) float32 at 16 kHz."""
    audio_lens: torch.Tensor
    """(B,) int64."""
    cuts: list[Cut]
    """The manifest's entry of each row."""
    epoch: int = 0
    """Pass over the data."""
    position: int = 0
    """Number of this batch within the epoch."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(cut id, reason) of what could not be read."""

    def __len__(self) -> int:
        return len(self.cuts)


Job = tuple[int, int, list[Row | Cut]]
"""Epoch, position and clips of a batch to read."""


def read_batch(epoch: int, position: int, clips: list[Row | Cut]) -> AudioBatch:
    """Read and pad the clips of one batch; unreadable ones are left out and listed in `skipped`."""
    good, wavs, skipped = [], [], []
    for clip in clips:
        try:
            cut = as_cut(clip)
            wavs.append(read_cut(cut))
            good.append(cut)
        except (AudioError, CorruptFileError) as error:  # the latter: a damaged shard
            skipped.append((clip.id, str(error)))
    if not wavs:
        empty = torch.zeros(0, dtype=torch.int64)
        return AudioBatch(torch.zeros(0, 0), empty, [], epoch, position, skipped)
    lens = torch.tensor([len(wav) for wav in wavs])
    return AudioBatch(pad_sequence(wavs, batch_first=True), lens, good, epoch, position, skipped)


class BatchLoader:
    """Yields the batches of an epoch, in an order that depends only on (cuts, settings, seed, epoch).

    The position is what was yielded, not what was prefetched, so a restored loader goes on with exactly
    the batch that would have come next.
    """

    def __init__(
        self,
        cuts: CutSet,
        max_duration_s: float,
        *,
        shuffle: bool = False,
        seed: int = 0,
        min_duration_s: float = 0.0,
        max_cut_duration_s: float | None = None,
        num_buckets: int = 10,
        quadratic_duration_s: float | None = None,
        skip_log: SkipLog | None = None,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        prefetch: int = 2,
        keep_empty: bool = False,
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            cuts: lhotse CutSet, best from `open_manifest` (lazy, JSON lines or Shar); iterated once per
                epoch.
            max_duration_s: audio per batch, padding included.
            shuffle: a new order each epoch.
            seed: of the shuffling.
            min_duration_s: shorter cuts are left out.
            max_cut_duration_s: longer cuts are left out.
            num_buckets: groups of similar duration.
            quadratic_duration_s: a cut of d seconds counts as d + d²/this.
            skip_log: told of every unreadable cut, and of those outside the length filter.
            rank: this process, of `world_size`: every process gets its own cuts, and (with `keep_empty`)
                as many batches.
            world_size: number of processes.
            num_workers: reading processes; 0 reads in this one.
            prefetch: batches that each of them reads ahead.
            keep_empty: also yield batches that have no readable cut, so that ranks stay in step.
        """
        settings = SamplingSettings(
            max_duration_s, shuffle, seed, min_duration_s, max_cut_duration_s,
            num_buckets, quadratic_duration_s, rank, world_size,
        )  # fmt: skip
        self.skip_log = skip_log if skip_log is not None else SkipLog()
        self.plan = BatchPlan(cuts, settings, self.skip_log.leave_out)
        self.num_workers = num_workers
        self.prefetch = prefetch
        self.keep_empty = keep_empty
        self._epoch = 0
        self._done = 0
        self._dealt: Dealt | None = None  # before `_done` began to count, in this epoch only
        self._restored = False

    def epoch(self, epoch: int) -> Iterator[AudioBatch]:
        """Yield the batches of one epoch; right after `load_state_dict`, the rest of that epoch.

        Raises:
            SslbenchError: nothing passes the length filter, or too many cuts are unreadable.
        """
        if not self._restored or epoch != self._epoch:
            self._epoch, self._done, self._dealt = epoch, 0, None
        yield from self._follow(self._jobs(epoch, self._done, self._dealt))
        self.skip_log.check()

    def endless(self) -> Iterator[AudioBatch]:
        """Yield the batches of epoch after epoch, reading ahead across their ends, from the stored position
        (or the start). Raises as `epoch`."""
        if not self._restored:
            self._epoch = self._done = 0
            self._dealt = None

        def jobs(epoch: int, start: int, dealt: Dealt | None) -> Iterator[Job]:
            while True:
                yield from self._jobs(epoch, start, dealt)
                epoch, start, dealt = epoch + 1, 0, None

        return self._follow(jobs(self._epoch, self._done, self._dealt))

    def _jobs(self, epoch: int, start: int, dealt: Dealt | None) -> Iterator[Job]:
        plan = self.plan.clips(epoch, start, dealt)
        return ((epoch, number, clips) for number, clips in enumerate(plan, start))

    def _follow(self, jobs: Iterator[Job]) -> Iterator[AudioBatch]:
        """Read jobs in their order, keep the position and account for what is unreadable."""
        self._restored = False
        for batch in self._read(jobs):
            if batch.epoch != self._epoch:
                self.skip_log.check()
                self._dealt = None
            self._epoch, self._done = batch.epoch, batch.position + 1
            self.skip_log.saw(len(batch) + len(batch.skipped))
            for cut_id, reason in batch.skipped:
                self.skip_log.add(cut_id, reason)
            if len(batch) or self.keep_empty:
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """The position: the batches yielded so far count as done; with how many cuts were unreadable."""
        s = self.plan.settings
        position = {"epoch": self._epoch, "done": self._done, "seed": s.seed, "world_size": s.world_size}
        if self._dealt is not None:
            position.update(order_for=self._dealt.world_size, dealt=self._dealt.batches)
        return {**position, "seen": self.skip_log.seen, "skipped": self.skip_log.skipped}

    def load_state_dict(self, state: dict[str, Any], reshard: bool = False) -> None:
        """Go to a stored position.

        Args:
            state: of `state_dict()`.
            reshard: allow another number of processes than stored: they deal out the rest of the epoch in
                the order that was begun, so that no utterance is repeated or left out.

        Raises:
            SslbenchError: the order would be another one.
        """
        s = self.plan.settings
        for key, own, may in (("seed", s.seed, False), ("world_size", s.world_size, reshard)):
            if state[key] != own and not may:
                hint = ", or allow another one with --allow_reshard" if key == "world_size" else ""
                raise SslbenchError(
                    f"data position: stored with {key}={state[key]}, now {own}; "
                    f"resume with the same {key}{hint}"
                )
        before = state["world_size"]
        dealt = Dealt(state.get("order_for", before), state.get("dealt", 0))
        done = state["done"]
        if before != s.world_size:
            dealt, done = Dealt(dealt.world_size, dealt.batches + done * before), 0
        self._dealt = dealt if dealt != Dealt(s.world_size, 0) else None
        self._epoch, self._done, self._restored = state["epoch"], done, True
        self.skip_log.seen, self.skip_log.skipped = state["seen"], state["skipped"]

    def _read(self, jobs: Iterator[Job]) -> Iterator[AudioBatch]:
        if self.num_workers == 0:
            return (read_batch(*job) for job in jobs)
        loader = torch.utils.data.DataLoader(
            _Reader(),
            sampler=jobs,  # lhotse's way: the sampler's item is the index
            batch_size=None,
            generator=torch.Generator(),  # starting workers must not draw from the training's random numbers
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch,
            worker_init_fn=_begin_worker,
        )
        return iter(loader)


class _Reader(torch.utils.data.Dataset[AudioBatch]):
    """Turns a job into a batch inside a worker process."""

    def __getitem__(self, job: Any) -> AudioBatch:
        return read_batch(*job)


def _begin_worker(_: int) -> None:
    # A signal to the whole process group (Ctrl-C, a scheduler) is the parent's to answer: it may want to
    # save first. The parent itself can still end this process.
    os.setpgid(0, 0)
    torch.set_num_threads(1)
