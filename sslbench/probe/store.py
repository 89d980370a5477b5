"""Features for training: computed once and kept, or computed anew when they would not fit.

Both stores give the same numbers for the same clips, so the choice changes cost only.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from lhotse import CutSet
from numpy.typing import NDArray

from sslbench.data.loading import BatchLoader, SkipLog, read_cut
from sslbench.errors import SslbenchError
from sslbench.io import read_json, write_json
from sslbench.probe.encoder import Encoder
from sslbench.probe.task import Example
from sslbench.progress import Progress

BATCH_DURATION_S = 60.0
SPARE_BYTES = 1 << 30


class Store(Protocol):
    """Features by example number."""

    layers: int
    dim: int

    def readable(self) -> list[bool]:
        """Which examples have features; the others were skipped and named."""
        ...

    def batch(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(L, B, F, D) zero-padded features and (B,) frame counts."""
        ...


class CachedStore:
    """All features in one memory-mapped float32 file, written in one pass over the audio.

    With `pooled` a clip is a single frame, its mean over time: for a head that is linear up to a mean,
    training on it is the same mathematics as training on all frames.
    """

    def __init__(
        self, folder: Path, examples: Sequence[Example], encoder: Encoder, pooled: bool, key: str
    ) -> None:
        """Open a finished cache with this key, or fill one.

        Raises:
            SslbenchError: the disk is too small, or too many clips are unreadable.
        """
        self.layers, self.dim, self.pooled = encoder.layers, encoder.dim, pooled
        frames = [1 if pooled else encoder.num_frames(e.cut.num_samples) for e in examples]
        sizes = np.array(frames, dtype=np.int64) * self.layers * self.dim
        self.offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes)])
        data, index = folder / "features.f32", folder / "index.json"
        stored = read_json(index) if index.is_file() else {}
        done = (
            data.is_file() and stored.get("key") == key and data.stat().st_size == 4 * int(self.offsets[-1])
        )
        if done:
            self.lens = np.array(stored["lens"], dtype=np.int64)
            self.values = np.memmap(data, np.float32, "r", shape=(int(self.offsets[-1]),))
            return
        self.lens = np.zeros(len(examples), dtype=np.int64)
        _check_disk(folder, 4 * int(self.offsets[-1]))
        index.unlink(missing_ok=True)
        self.values = np.memmap(data, np.float32, "w+", shape=(int(self.offsets[-1]),))
        self._fill(examples, encoder, SkipLog(folder.parent / "skipped.jsonl"))
        self.values.flush()
        write_json(index, {"key": key, "lens": self.lens.tolist()})

    def _fill(self, examples: Sequence[Example], encoder: Encoder, skips: SkipLog) -> None:
        numbers = {example.id: number for number, example in enumerate(examples)}
        if len(numbers) != len(examples):
            raise SslbenchError("probe: two examples share an id; cut ids must be unique within a corpus")
        loader = BatchLoader(CutSet.from_cuts([e.cut for e in examples]), BATCH_DURATION_S, skip_log=skips)
        with Progress("features", len(examples)) as progress:
            for batch in loader.epoch(0):
                wavs = [wav[: int(n)] for wav, n in zip(batch.audio, batch.audio_lens, strict=True)]
                for cut, states in zip(batch.cuts, encoder.encode(wavs), strict=True):
                    self._put(numbers[cut.id], states)
                progress.advance(len(batch))

    def _put(self, number: int, states: torch.Tensor) -> None:
        if self.pooled:
            states = states.mean(dim=1, keepdim=True)
        start, end = self.offsets[number], self.offsets[number + 1]
        block = self.values[start:end].reshape(self.layers, -1, self.dim)
        # a file may be a few samples off its manifest
        frames = min(states.shape[1], block.shape[1])
        block[:, :frames] = states[:, :frames].numpy()
        self.lens[number] = frames

    def readable(self) -> list[bool]:
        return [bool(n) for n in self.lens > 0]

    def batch(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        lens = torch.from_numpy(self.lens[list(numbers)])
        padded = torch.zeros(self.layers, len(numbers), int(lens.max()), self.dim)
        for row, number in enumerate(numbers):
            block = self.values[self.offsets[number] : self.offsets[number + 1]]
            frames = int(self.lens[number])
            whole = block.reshape(self.layers, -1, self.dim)[:, :frames]
            padded[:, row, :frames] = torch.from_numpy(whole.copy())
        return padded, lens


class LiveStore:
    """Features computed when asked for: no disk, one upstream pass per batch for the whole lr grid."""

    def __init__(self, examples: Sequence[Example], encoder: Encoder, pooled: bool, skips: SkipLog) -> None:
        """Check that every clip can be read (headers and samples once, no upstream)."""
        self.examples, self.encoder, self.pooled = examples, encoder, pooled
        self.layers, self.dim = encoder.layers, encoder.dim
        bad = BatchLoader(CutSet.from_cuts([e.cut for e in examples]), BATCH_DURATION_S, skip_log=skips)
        self._good = {cut.id for batch in bad.epoch(0) for cut in batch.cuts}

    def readable(self) -> list[bool]:
        return [example.id in self._good for example in self.examples]

    def batch(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        clips: list[torch.Tensor] = []
        wavs: list[torch.Tensor] = []
        for number in numbers:
            wavs.append(read_cut(self.examples[number].cut))
            if sum(map(len, wavs)) / 16_000 >= BATCH_DURATION_S:
                clips, wavs = clips + self.encoder.encode(wavs), []
        clips += self.encoder.encode(wavs) if wavs else []
        if self.pooled:
            clips = [clip.mean(dim=1, keepdim=True) for clip in clips]
        lens = torch.tensor([clip.shape[1] for clip in clips])
        padded = torch.zeros(self.layers, len(clips), int(lens.max()), self.dim)
        for row, clip in enumerate(clips):
            padded[:, row, : clip.shape[1]] = clip
        return padded, lens


def cache_bytes(examples: Sequence[Example], encoder: Encoder, pooled: bool) -> int:
    """The size that a cache of these examples would have."""
    frames = len(examples) if pooled else sum(encoder.num_frames(e.cut.num_samples) for e in examples)
    return 4 * frames * encoder.layers * encoder.dim


def open_store(
    folder: Path, examples: Sequence[Example], encoder: Encoder, pooled: bool, key: str, limit_bytes: int
) -> Store:
    """A cache when it fits into `limit_bytes`, else features computed anew for every batch."""
    wanted = cache_bytes(examples, encoder, pooled)
    folder.mkdir(parents=True, exist_ok=True)
    if wanted > limit_bytes:
        print(f"features: {wanted / 1e9:.1f} GB are above the cache limit; they are computed for each batch")
        return LiveStore(examples, encoder, pooled, SkipLog(folder.parent / "skipped.jsonl"))
    return CachedStore(folder, examples, encoder, pooled, key)


def _check_disk(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted + SPARE_BYTES > free:
        raise SslbenchError(
            f"{folder}: features need {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "use another --out, or --cache_gb 0 to compute them for each batch"
        )
