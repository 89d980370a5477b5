"""Features for training: computed once and kept in shards, or computed anew when they would not fit.

Both stores give the same numbers for the same clips (up to the cache's number format, which rows state)
where a clip's features do not depend on its batch, as those of our own upstreams; s3prl's may. A run that
was begun with one is therefore not gone on with the other.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from lhotse.cut import Cut

from sslbench.data.loading import AudioBatch, SkipLog, read_batch, read_cut
from sslbench.errors import SslbenchError
from sslbench.probe.encoder import Encoder
from sslbench.probe.shards import Shards
from sslbench.probe.task import Example

BATCH_DURATION_S = 60.0
SPARE_BYTES = 1 << 30
LIMIT_SHARE = 0.01  # of clips that may be unreadable
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Waveform = Callable[[torch.Tensor], torch.Tensor]


class Store(ABC):
    """Features by example number."""

    layers: int
    dim: int

    @abstractmethod
    def readable(self) -> list[bool]:
        """Which examples have features; the others were skipped and named."""

    @abstractmethod
    def clips(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        """(L, F, D) float32 of each example; a pooled store has F = 1."""

    def clip(self, number: int) -> torch.Tensor:
        """(L, F, D) float32 of one example."""
        return self.clips([number])[0]

    def batch(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(L, B, F, D) zero-padded features and (B,) frame counts."""
        clips = self.clips(numbers)
        lens = torch.tensor([clip.shape[1] for clip in clips])
        padded = torch.zeros(self.layers, len(clips), int(lens.max()), self.dim)
        for row, clip in enumerate(clips):
            padded[:, row, : clip.shape[1]] = clip
        return padded, lens


class CachedStore(Store):
    """All features on disk, written in one pass over the audio, shard by shard.

    With `pooled` a clip is a single frame, its mean over time: for a head that is linear up to a mean,
    training on it is the same mathematics as training on all frames. A killed pass goes on at the first
    shard that is missing; a cache with another key is not used.
    """

    def __init__(
        self, folder: Path, examples: Sequence[Example], encoder: Encoder, pooled: bool, key: str,
        *, precision: str = "fp32", waveform: Waveform | None = None, progress: str = "features",
    ) -> None:  # fmt: skip
        """Open a finished cache with this key, or fill one.

        Args:
            folder: of the shards.
            examples: all clips; numbers are positions in here.
            encoder: gives the features.
            pooled: keep means over time.
            key: of weights, data, code and settings.
            precision: number format of unpooled features on disk (means stay float32).
            waveform: the task's treatment of a clip.
            progress: what the progress line says.

        Raises:
            SslbenchError: the disk is too small, or too many clips are unreadable.
        """
        self.layers, self.dim = encoder.layers, encoder.dim
        frame_bytes = self.layers * self.dim * (4 if pooled else DTYPES[precision].itemsize)
        sizes = [frame_bytes * (1 if pooled else encoder.num_frames(e.cut.num_samples) + 1) for e in examples]
        self._shards = Shards(folder, key, sizes, [e.cut.duration for e in examples])
        if self._shards.missing():
            _check_disk(folder, sum(sizes[n] for shard in self._shards.missing() for n in shard.numbers))
            dtype = torch.float32 if pooled else DTYPES[precision]
            skips = SkipLog(folder.parent / "skipped.jsonl", limit_share=1.0)
            source = _Source(examples, encoder, pooled, waveform, skips)
            self._shards.fill(lambda numbers: source.features(numbers, dtype), progress)
        self._good = [length > 0 for length in self._shards.lens()]
        _check_share(self._good, folder.parent / "skipped.jsonl")

    def readable(self) -> list[bool]:
        return self._good

    def clips(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        return [self._shards.values(n).view(self.layers, -1, self.dim).float() for n in numbers]


class LiveStore(Store):
    """Features computed when asked for: no disk, one upstream pass per batch for the whole grid."""

    def __init__(
        self, examples: Sequence[Example], encoder: Encoder, skipped: Path, waveform: Waveform | None = None
    ) -> None:
        """Check that every clip can be read (headers and samples once, no upstream)."""
        self.examples, self.encoder, self.waveform = examples, encoder, waveform
        self.layers, self.dim = encoder.layers, encoder.dim
        skips = SkipLog(skipped, limit_share=1.0)
        batches = _read_ahead(([n] for n in range(len(examples))), examples)
        self._good = [bool(batch.cuts) for batch in (_logged(b, skips) for b in batches)]
        _check_share(self._good, skipped)

    def readable(self) -> list[bool]:
        return self._good

    def clips(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        clips: list[torch.Tensor] = []
        wavs: list[torch.Tensor] = []
        for number in numbers:
            wav = read_cut(self.examples[number].cut)
            wavs.append(self.waveform(wav) if self.waveform else wav)
            if sum(map(len, wavs)) / 16_000 >= BATCH_DURATION_S:
                clips, wavs = clips + self.encoder.encode(wavs), []
        return clips + self.encoder.encode(wavs) if wavs else clips


class _Source:
    """Audio to features, in batches of about `BATCH_DURATION_S`, reading one batch ahead."""

    def __init__(
        self, examples: Sequence[Example], encoder: Encoder, pooled: bool, waveform: Waveform | None,
        skips: SkipLog,
    ) -> None:  # fmt: skip
        self.examples, self.encoder, self.pooled, self.waveform = examples, encoder, pooled, waveform
        self.skips = skips

    def features(self, numbers: Sequence[int], dtype: torch.dtype) -> Iterator[tuple[int, torch.Tensor]]:
        """(number, (L, F, D)) of every readable example."""
        groups = _groups(numbers, self.examples)
        for group, batch in zip(groups, _read_ahead(groups, self.examples), strict=True):
            wavs = [wav[: int(n)] for wav, n in zip(batch.audio, batch.audio_lens, strict=True)]
            wavs = [self.waveform(wav) for wav in wavs] if self.waveform else wavs
            _logged(batch, self.skips)
            by_id = {self.examples[n].id: n for n in group}
            for cut, states in zip(batch.cuts, self.encoder.encode(wavs) if wavs else [], strict=True):
                kept = states.mean(dim=1, keepdim=True) if self.pooled else states
                if dtype == torch.float16 and float(kept.abs().max()) > torch.finfo(dtype).max:
                    raise SslbenchError(f"{cut.id}: features exceed float16; use --cache_precision bf16")
                yield by_id[str(cut.id)], kept.to(dtype)


def _groups(numbers: Sequence[int], examples: Sequence[Example]) -> list[list[int]]:
    """Consecutive numbers whose padded audio is at most `BATCH_DURATION_S`."""
    groups: list[list[int]] = []
    longest_s = 0.0
    for number in numbers:
        longest_s = max(longest_s, examples[number].cut.duration)
        if not groups or longest_s * (len(groups[-1]) + 1) > BATCH_DURATION_S:
            groups.append([])
            longest_s = examples[number].cut.duration
        groups[-1].append(number)
    return groups


def _read_ahead(
    groups: Sequence[list[int]] | Iterator[list[int]], examples: Sequence[Example]
) -> Iterator[AudioBatch]:
    """The audio of each group; the next one is read while the caller works."""

    def cuts(group: list[int]) -> list[Cut]:
        return [examples[n].cut for n in group]

    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for position, group in enumerate(groups):
            coming = pool.submit(read_batch, 0, position, cuts(group))
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


def _logged(batch: AudioBatch, skips: SkipLog) -> AudioBatch:
    skips.saw(len(batch) + len(batch.skipped))
    for cut_id, reason in batch.skipped:
        skips.add(cut_id, reason)
    return batch


def _check_share(good: Sequence[bool], skipped: Path) -> None:
    bad = len(good) - sum(good)
    if bad > LIMIT_SHARE * len(good):
        raise SslbenchError(
            f"{bad} of {len(good)} clips could not be used, more than the limit of {LIMIT_SHARE:.0%}; "
            f"all are named in {skipped}; mend or remove them"
        )


def cache_bytes(examples: Sequence[Example], encoder: Encoder, pooled: bool, precision: str = "fp32") -> int:
    """The size that a cache of these examples would have (without its few kB of headers)."""
    frames = len(examples) if pooled else sum(encoder.num_frames(e.cut.num_samples) for e in examples)
    return (4 if pooled else DTYPES[precision].itemsize) * frames * encoder.layers * encoder.dim


def is_kept(pooled: bool, size_bytes: int, cache_gb: float) -> bool:
    """Whether features stay on disk. Means always do: they are small, and every step reads them."""
    return pooled or size_bytes <= cache_gb * 1e9


def _check_disk(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted + SPARE_BYTES > free:
        raise SslbenchError(
            f"{folder}: features need {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "use another --out, or --cache_gb 0 to compute them for each batch"
        )
