"""Which cuts form which batch: lhotse's dynamic bucketing, deterministic per (seed, epoch)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets

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

    def keeps(self, cut: Cut) -> bool:
        """Whether the length filter lets a cut through."""
        longest = float("inf") if self.max_cut_duration_s is None else self.max_cut_duration_s
        return bool(self.min_duration_s <= cut.duration <= longest)


class BatchPlan:
    """The sequence of batches of each epoch, as lists of cuts; a position in it is (epoch, batches done)."""

    def __init__(self, cuts: CutSet, settings: SamplingSettings) -> None:
        self.cuts = cuts
        self.settings = settings
        self._bins: list[float] | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Cut]]:
        """Yield this rank's batches of one epoch from number `start` on; every rank gets as many.

        The last may be empty on some ranks, so that no cut is repeated.
        Skipping replays the sampler over the manifest without touching audio: exact by construction,
        at the cost of reading the manifest again.

        Raises:
            SslbenchError: no cut passes the length filter.
        """
        rank, world_size = self.settings.rank, self.settings.world_size
        whole = self._whole_epoch(epoch)
        number = 0
        while group := list(islice(whole, world_size)):
            if number >= start:
                yield group[rank] if rank < len(group) else []
            number += 1

    def _whole_epoch(self, epoch: int) -> Iterator[list[Cut]]:
        """All ranks' batches; each run of `world_size` comes from one bucket, so ranks finish together.

        Dealt out here rather than by lhotse, which fills up the last step by repeating cuts.
        """
        sampler = self._sampler()
        sampler.set_epoch(epoch)
        iter(sampler)
        with contextlib.suppress(StopIteration):
            while True:
                yield list(sampler._next_batch())

    def _sampler(self) -> DynamicBucketingSampler:
        s = self.settings
        if self._bins is None:
            self._bins = self._duration_bins()
        sampler = DynamicBucketingSampler(
            self.cuts,
            max_duration=s.max_duration_s,
            shuffle=s.shuffle,
            seed=s.seed,
            duration_bins=list(self._bins),
            buffer_size=BUFFER_CUTS,
            quadratic_duration=s.quadratic_duration_s,
            rank=0,
            world_size=s.world_size,
        )
        return sampler.filter(s.keeps)

    def _duration_bins(self) -> list[float]:
        kept = list(islice(filter(self.settings.keeps, self.cuts), BIN_ESTIMATE_CUTS))
        if not kept:
            raise SslbenchError(
                "the manifest has no cut within the length filter "
                f"({self.settings.min_duration_s} s to {self.settings.max_cut_duration_s or 'any'} s); "
                "check the manifest or widen min_duration_s / max_cut_duration_s"
            )
        total_s = sum(cut.duration for cut in kept)
        # a bucket that cannot fill one batch only makes partial batches
        buckets = min(self.settings.num_buckets, len(kept), int(total_s / self.settings.max_duration_s))
        bins = [float(edge) for edge in estimate_duration_buckets(kept, buckets)] if buckets > 1 else []
        return bins or [float("inf")]
