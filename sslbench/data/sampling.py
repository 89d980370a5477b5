"""Which cuts form which batch: lhotse's dynamic bucketing, deterministic per (seed, epoch)."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets

from sslbench.data.rows import ManifestRows, Row, as_cut
from sslbench.errors import SslbenchError

BUFFER_CUTS = 20_000
BIN_ESTIMATE_CUTS = 10_000

# An eager manifest, a rare long cut and a small buffer are all fine here.
for _message in (
    "You are using DynamicBucketingSampler with an eagerly",
    "Your 'buffer_size' setting",
    "We have exceeded the max_duration",
):
    warnings.filterwarnings("ignore", message=_message)


@dataclass(frozen=True)
class SamplingSettings:
    """What decides the batches."""

    max_duration_s: float
    """Audio per batch, padding included."""
    shuffle: bool = False
    """A new order each epoch."""
    seed: int = 0
    """Of the shuffling."""
    min_duration_s: float = 0.0
    """Shorter cuts are left out."""
    max_cut_duration_s: float | None = None
    """Longer cuts are left out; None keeps all."""
    num_buckets: int = 10
    """Groups of similar duration; small manifests use fewer."""
    quadratic_duration_s: float | None = None
    """A cut of d seconds counts as d + d²/this, for attention's memory (k2SSL Large: 1024)."""
    rank: int = 0
    """This process, of `world_size`; every process must step through the same number of batches."""
    world_size: int = 1

    def keeps(self, clip: Row | Cut) -> bool:
        """Whether the length filter lets a cut through."""
        longest = float("inf") if self.max_cut_duration_s is None else self.max_cut_duration_s
        return bool(self.min_duration_s <= clip.duration <= longest)

    def why_not(self, clip: Row | Cut) -> str:
        """Why the length filter leaves a cut out, in words."""
        if clip.duration < self.min_duration_s:
            return f"{clip.duration:g} s is shorter than min_duration_s {self.min_duration_s:g}"
        return f"{clip.duration:g} s is longer than max_cut_duration_s {self.max_cut_duration_s:g}"


@dataclass(frozen=True)
class Dealt:
    """How far another number of processes came in an epoch."""

    world_size: int
    """Processes that the epoch's order was made for."""
    batches: int
    """Batches of that order that were dealt out, to all of them."""


class BatchPlan:
    """The sequence of batches of each epoch, as lists of cuts; a position in it is (epoch, batches done).

    Memory holds `BUFFER_CUTS` rows, however long the manifest is. Shuffling draws from that buffer; of a
    Shar folder it also draws the order of the shards anew for each epoch.
    """

    def __init__(
        self, cuts: CutSet, settings: SamplingSettings, left_out: Callable[[str, str], None] | None = None
    ) -> None:
        """Take cuts, best opened by `open_manifest`; `left_out(id, reason)` hears of filtered ones."""
        self.cuts = cuts
        self.settings = settings
        self._left_out = left_out
        self._bins: list[float] | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Cut]]:
        """`clips` with every cut built."""
        return ([as_cut(clip) for clip in clips] for clips in self.clips(epoch, start))

    def clips(self, epoch: int, start: int = 0, dealt: Dealt | None = None) -> Iterator[list[Row | Cut]]:
        """Yield this rank's batches of one epoch from number `start` on; every rank gets as many.

        The last may be empty on some ranks, so that no cut is repeated.
        Skipping replays the sampler over the manifest's rows without building cuts or touching audio:
        exact by construction, for JSON lines and Shar alike, at the cost of reading the rows again.
        With `dealt`, batches count from there: the rest of that epoch goes out in the order that was begun.

        Raises:
            SslbenchError: no cut passes the length filter.
        """
        rank, world_size = self.settings.rank, self.settings.world_size
        dealt = dealt or Dealt(world_size, 0)
        whole = islice(self._whole_epoch(epoch, dealt.world_size), dealt.batches, None)
        number = 0
        while group := list(islice(whole, world_size)):
            if number >= start:
                yield group[rank] if rank < len(group) else []
            number += 1

    def _whole_epoch(self, epoch: int, world_size: int) -> Iterator[list[Row | Cut]]:
        """All ranks' batches; each run of `world_size` comes from one bucket, so ranks finish together.

        Dealt out here rather than by lhotse, which fills up the last step by repeating cuts.
        """
        sampler = self._sampler(epoch, world_size)
        sampler.set_epoch(epoch)
        iter(sampler)
        with contextlib.suppress(StopIteration):
            while True:
                yield list(sampler._next_batch())

    def _sampler(self, epoch: int, world_size: int) -> DynamicBucketingSampler:
        s = self.settings
        if self._bins is None:
            self._bins = self._duration_bins()
        order = random.Random(f"{s.seed} {epoch}") if s.shuffle else None
        sampler = DynamicBucketingSampler(
            _Kept(self.cuts, s, order, self._left_out),
            max_duration=s.max_duration_s,
            shuffle=s.shuffle,
            seed=s.seed,
            duration_bins=list(self._bins),
            buffer_size=BUFFER_CUTS,
            quadratic_duration=s.quadratic_duration_s,
            rank=0,
            world_size=world_size,
        )
        return sampler

    def _duration_bins(self) -> list[float]:
        kept = list(islice(_Kept(self.cuts, self.settings), BIN_ESTIMATE_CUTS))
        if not kept:
            raise SslbenchError(
                "the manifest has no cut within the length filter "
                f"({self.settings.min_duration_s} s to {self.settings.max_cut_duration_s or 'any'} s); "
                "check the manifest or widen min_duration_s / max_cut_duration_s"
            )
        total_s = sum(clip.duration for clip in kept)
        # a bucket that cannot fill one batch only makes partial batches
        buckets = min(self.settings.num_buckets, len(kept), int(total_s / self.settings.max_duration_s))
        bins = [float(edge) for edge in estimate_duration_buckets(kept, buckets)] if buckets > 1 else []
        return bins or [float("inf")]


class _Kept:
    """The clips that pass the length filter: rows where the manifest has rows, else cuts."""

    def __init__(
        self,
        cuts: CutSet,
        settings: SamplingSettings,
        order: random.Random | None = None,
        left_out: Callable[[str, str], None] | None = None,
    ) -> None:
        self.cuts, self.settings, self.order, self.left_out = cuts, settings, order, left_out

    def __iter__(self) -> Iterator[Row | Cut]:
        data = self.cuts.data
        clips = data.rows(self.order) if isinstance(data, ManifestRows) else data
        for clip in clips:
            if self.settings.keeps(clip):
                yield clip
            elif self.left_out is not None:
                self.left_out(str(clip.id), self.settings.why_not(clip))
