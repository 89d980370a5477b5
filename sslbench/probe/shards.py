"""A feature cache on disk: shards that are whole or absent, so that a killed pass goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sslbench.errors import CorruptFileError
from sslbench.io import atomic_path, read_json, write_json
from sslbench.progress import Progress

SHARD_BYTES = 256 << 20
SHARD_DURATION_S = 1800.0
INDEX = "index.json"

Compute = Callable[[Sequence[int]], Iterator[tuple[int, torch.Tensor]]]
"""Features of the readable ones of some examples, as (number, tensor)."""


@dataclass(frozen=True)
class Shard:
    """Some examples and the file that holds their features."""

    path: Path
    numbers: tuple[int, ...]


class Shards:
    """The shards of one cache: examples of similar length together, at most `SHARD_BYTES` or
    `SHARD_DURATION_S` each."""

    def __init__(self, folder: Path, key: str, sizes: Sequence[int], durations_s: Sequence[float]) -> None:
        """Open or start a cache; one with another key is removed.

        Args:
            folder: of the files.
            key: of everything that decides the features and their order.
            sizes: predicted bytes of each example.
            durations_s: of each example.
        """
        self.folder, self.count = folder, len(sizes)
        index = folder / INDEX
        if folder.is_dir() and (not index.is_file() or read_json(index).get("key") != key):
            shutil.rmtree(folder)
        if not index.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(index, {"key": key, "examples": self.count})
        self._shards = [
            Shard(folder / f"{i:05d}.safetensors", numbers)
            for i, numbers in enumerate(_planned(sizes, durations_s))
        ]
        self._place: dict[int, tuple[torch.Tensor, int, int]] = {}

    def missing(self) -> list[Shard]:
        """Shards not written yet."""
        return [shard for shard in self._shards if not shard.path.is_file()]

    def fill(self, compute: Compute, what: str) -> None:
        """Compute and write the missing shards."""
        from safetensors.torch import save_file

        missing = self.missing()
        total = sum(len(shard.numbers) for shard in self._shards)
        left = sum(len(shard.numbers) for shard in missing)
        with Progress(what, total, done=total - left) as progress:
            for shard in missing:
                found: dict[int, torch.Tensor] = {}
                for number, values in compute(shard.numbers):
                    found[number] = values.reshape(-1)
                    progress.advance()
                lens = [found[n].numel() if n in found else 0 for n in shard.numbers]
                values = torch.cat([found[n] for n in shard.numbers if n in found] or [torch.zeros(0)])
                with atomic_path(shard.path) as temporary:
                    save_file({"values": values, "lens": torch.tensor(lens)}, temporary)

    def lens(self) -> list[int]:
        """Numbers stored for each example; 0 for an unreadable one. Maps all shards into memory.

        Raises:
            CorruptFileError: a damaged shard.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        lens = [0] * self.count
        for shard in self._shards:
            try:
                content = load_file(shard.path)
            except (SafetensorError, OSError) as error:
                raise CorruptFileError(
                    f"{shard.path}: is damaged ({error}); remove it and run again"
                ) from None
            start = 0
            for number, length in zip(shard.numbers, content["lens"].tolist(), strict=True):
                self._place[number] = (content["values"], start, start + length)
                lens[number] = length
                start += length
        return lens

    def values(self, number: int) -> torch.Tensor:
        """The flat features of an example, on the disk's pages."""
        values, start, end = self._place[number]
        return values[start:end]


def _planned(sizes: Sequence[int], durations_s: Sequence[float]) -> list[tuple[int, ...]]:
    shards: list[list[int]] = []
    held, seconds = 0, 0.0
    for number in sorted(range(len(sizes)), key=lambda n: (durations_s[n], n)):
        if (
            not shards
            or held + sizes[number] > SHARD_BYTES
            or seconds + durations_s[number] > SHARD_DURATION_S
        ):
            shards.append([])
            held, seconds = 0, 0.0
        shards[-1].append(number)
        held += sizes[number]
        seconds += durations_s[number]
    return [tuple(shard) for shard in shards]
