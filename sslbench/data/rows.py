"""Manifests as rows: one line each, built into a lhotse cut only where its audio is read.

Sampling needs a cut's duration alone. Keeping the line's bytes until a reading process wants the cut
makes opening, sampling and the replay after a resume several times cheaper than building every cut, and
bounds the memory by the sampler's buffer, whatever the size of the corpus.

A Shar folder (lhotse's format: `cuts.000000.jsonl.gz` beside `recording.000000.tar`, and so on) is read
the same way: the audio of a cut is found by its place in the tar, not by reading the tar from its
beginning, so that any order can be resumed exactly.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from lhotse.cut import Cut
from lhotse.cut.set import deserialize_cut

from sslbench.errors import CorruptFileError, SslbenchError

SHARD_CUTS, SHARD_AUDIO = "cuts.*.jsonl.gz", "recording.{}.tar"
TAR = "tar"
"""Type of the audio sources of Shar cuts: `PATH:OFFSET:BYTES` within an uncompressed tar."""
OPEN_SHARDS = 256  # tables of members kept by a reading process
_HEAD = re.compile(rb'\{"id": ("(?:[^"\\]|\\.)*"), "start": [-+.\deE]+, "duration": ([-+.\deE]+),')


class Row:
    """One line of a manifest. Pickles to little more than the line."""

    __slots__ = ("duration", "line", "place")

    def __init__(self, line: bytes, place: tuple[str, int] | None = None) -> None:
        """Take a line, and for Shar its (tar, number within the shard). Raises `ValueError`."""
        self.line = line
        self.place = place
        head = _HEAD.match(line)
        # a mixed cut's duration has to be computed
        self.duration = float(head[2]) if head else float(self.cut().duration)

    @property
    def id(self) -> str:
        """The cut's id."""
        head = _HEAD.match(self.line)
        return str(json.loads(head[1] if head else self.line)) if head else str(json.loads(self.line)["id"])

    def as_dict(self) -> dict[str, Any]:
        """The line's content."""
        return cast("dict[str, Any]", json.loads(self.line))

    def cut(self) -> Cut:
        """Build the cut, without its audio.

        Raises:
            CorruptFileError: its shard has no audio of that name.
        """
        content = self.as_dict()
        if self.place is not None:
            content["recording"] = _placed(content, *self.place)
        return deserialize_cut(content)


def as_cut(clip: Row | Cut) -> Cut:
    """The cut of a row; a cut as it is."""
    return clip.cut() if isinstance(clip, Row) else clip


class ManifestRows:
    """The rows of a manifest or of a Shar folder's shards, read anew by every iteration."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    def rows(self, order: random.Random | None = None) -> Iterator[Row]:
        """Yield rows; with `order`, the shards in an order drawn from it.

        Raises:
            CorruptFileError: a damaged file, or a line that is no cut; names file and line.
        """
        files = list(self.files)
        if order is not None:
            order.shuffle(files)
        for file in files:
            tar = audio_of(file)
            for number, line in enumerate(lines_of(file)):
                try:
                    yield Row(line, (tar, number) if tar else None)
                except (ValueError, KeyError, TypeError) as error:
                    raise CorruptFileError(f"{file}:{number + 1}: is not a cut ({error})") from None

    def __iter__(self) -> Iterator[Cut]:
        return (row.cut() for row in self.rows())

    def __len__(self) -> int:
        return sum(1 for file in self.files for _ in lines_of(file))


def lines_of(file: Path) -> Iterator[bytes]:
    """The lines of a plain or gzipped file. Raises `CorruptFileError` when it is damaged."""
    try:
        with cast("BinaryIO", gzip.open(file) if file.suffix == ".gz" else file.open("rb")) as stream:
            for line in stream:
                if line.strip():
                    yield line
    except gzip.BadGzipFile as error:
        raise CorruptFileError(f"{file}: is not a manifest ({error}); prepare the corpus again") from None
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptFileError(f"{file}: is damaged ({error}); prepare the corpus again") from None


# --- Shar


def shards_of(folder: Path) -> list[Path]:
    """The cut files of a Shar folder in their order; none when the folder is something else."""
    return sorted(folder.glob(SHARD_CUTS))


def audio_of(cuts_file: Path) -> str | None:
    """The tar that belongs to a shard's cut file; None for a manifest that is no shard."""
    name = re.fullmatch(r"cuts\.(\d+)\.jsonl\.gz", cuts_file.name)
    return str(cuts_file.with_name(SHARD_AUDIO.format(name[1]))) if name else None


@lru_cache(OPEN_SHARDS)
def members_of(tar: str) -> list[tuple[str, int, int]]:
    """The audio members of a shard in their order: name without suffix, first byte, bytes.

    Raises:
        CorruptFileError: missing, or not a tar.
    """
    try:
        with tarfile.open(tar, "r:") as archive:
            members = [(m.name, m.offset_data, m.size) for m in archive]
    except (OSError, tarfile.TarError) as error:
        raise CorruptFileError(f"{tar}: cannot be read as a tar ({error}); write the shard again") from None
    # audio and its lhotse description take turns
    return [(name.rpartition(".")[0], start, size) for name, start, size in members[::2]]


def _placed(content: dict[str, Any], tar: str, number: int) -> dict[str, Any]:
    """The recording of a Shar cut with the place of its audio."""
    members = members_of(tar)
    name, start, size = members[number] if number < len(members) else ("nothing", 0, 0)
    if name != content["id"]:
        raise CorruptFileError(
            f"{tar}: holds {name} where cut {content['id']} should be; write the shard again"
        )
    recording: dict[str, Any] = dict(content.get("recording") or {})
    channels = recording.get("channel_ids") or [0]
    recording["sources"] = [{"type": TAR, "channels": channels, "source": f"{tar}:{start}:{size}"}]
    return recording


def read_place(place: str) -> bytes:
    """The bytes at `PATH:OFFSET:BYTES`. Raises `SslbenchError` when they are not there."""
    path, start, size = place.rsplit(":", 2)
    try:
        with open(path, "rb", buffering=0) as stream:  # one read: no use for a buffer
            stream.seek(int(start))
            data = stream.read(int(size))
    except OSError as error:
        raise SslbenchError(f"{path}: cannot be read ({error})") from None
    if len(data) < int(size):
        raise SslbenchError(f"{path}: ends before byte {int(start) + int(size)}")
    return data
