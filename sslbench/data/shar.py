"""Manifests and their audio as lhotse Shar: a few large files instead of millions of small ones.

Storage over a network reads large files many times faster than small ones, and a training machine needs
nothing but the folder. The result is plain lhotse Shar: `lhotse.CutSet.from_shar(in_dir=OUT)` reads it
too. Audio files of 16 kHz mono wav or flac that a cut covers wholly are copied byte for byte; anything
else is cut out and stored as 16-bit flac. Units on the cuts come along, so label before sharding.
"""

from __future__ import annotations

import gzip
import io as bytes_io
import json
import shutil
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lhotse.cut import MonoCut
from lhotse.shar.utils import to_shar_placeholder
from lhotse.shar.writers.tar import TarWriter
from lhotse.utils import fastcopy

from sslbench import io
from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.data.loading import read_cut
from sslbench.data.manifests import describe, manifest_files
from sslbench.data.parallel import chunks, ordered
from sslbench.data.rows import SHARD_AUDIO, ManifestRows, Row, shards_of
from sslbench.data.skips import SkipLog
from sslbench.errors import AudioError, SslbenchError
from sslbench.progress import Progress

SHARD_CUTS = 1000
COPIED = (".wav", ".flac")


@dataclass(frozen=True)
class _Shard:
    """One shard to write."""

    number: int
    rows: list[Row]
    out: Path
    state: Path


def write_shar(
    manifest: Path | str,
    out: Path | str,
    *,
    shard_cuts: int = SHARD_CUTS,
    seed: int | None = 0,
    jobs: int = 1,
    limit_share: float = 0.01,
) -> dict[str, Any]:
    """Write a manifest and its audio as a Shar folder; finished shards of an interrupted run are kept.

    Beside the folder lie `OUT.shar.json` (what it was made of; written last) and `OUT.skipped.jsonl`.

    Args:
        manifest: cuts, or a Shar folder to write anew.
        out: the folder, which holds nothing but shards.
        shard_cuts: cuts per shard.
        seed: the cuts are shuffled over the whole corpus with it; None keeps the manifest's order.
        jobs: shards written at a time.
        limit_share: share of unreadable cuts above which the work ends.

    Returns:
        The content of `OUT.shar.json`.

    Raises:
        SslbenchError: too many unreadable cuts, or `out` holds shards of another request.
    """
    out = Path(out)
    about = describe(manifest)
    request = {"manifest_sha256": about.sha256, "shard_cuts": shard_cuts, "seed": seed}
    final, state = _beside(out, ".shar.json"), out.with_name(f".shar-{out.name}")
    if final.is_file() and shards_of(out) and _matches(io.read_json(final), request):
        done: dict[str, Any] = io.read_json(final)
        return done
    _claim(out, state, final, request)
    skips = SkipLog(_beside(out, ".skipped.jsonl"), limit_share)
    written = sum(_write_all(manifest, out, state, request, jobs, about.cuts, skips))
    facts = {
        **request,
        "corpus": about.data.corpus,
        "synthetic": about.data.synthetic,
        "cuts": written,
        "shards": len(shards_of(out)),
        "skipped": skips.count,
    }
    if facts["cuts"] == 0:
        raise SslbenchError(f"{manifest}: no cut could be read; see {skips.path}")
    io.write_json(final, facts)
    shutil.rmtree(state)
    return facts


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)


def _matches(stored: dict[str, Any], request: dict[str, Any]) -> bool:
    return all(stored.get(key) == value for key, value in request.items())


def _claim(out: Path, state: Path, final: Path, request: dict[str, Any]) -> None:
    """Make the folders, or refuse those of another request."""
    begun = state / "request.json"
    foreign = begun.is_file() and not _matches(io.read_json(begun), request)
    if foreign or (not begun.is_file() and out.is_dir() and any(out.iterdir())):
        raise SslbenchError(f"{out}: holds shards of another request; choose another --out or remove it")
    final.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    io.write_json(begun, request)


def _write_all(
    manifest: Path | str,
    out: Path,
    state: Path,
    request: dict[str, Any],
    jobs: int,
    total: int,
    skips: SkipLog,
) -> Iterator[int]:
    """The number of cuts in each shard, as it is written."""
    rows = _ordered_rows(manifest, out.parent, request["seed"])
    shards = (_Shard(n, chunk, out, state) for n, chunk in enumerate(chunks(rows, request["shard_cuts"])))
    with Progress("shar: cuts written", total) as progress:
        for result in ordered(_write_shard, shards, jobs):
            skips.saw(result["cuts"] + len(result["skipped"]))
            for cut_id, reason in result["skipped"]:
                skips.add(cut_id, reason)
            progress.advance(result["cuts"] + len(result["skipped"]))
            yield result["cuts"]
    skips.check()


def _ordered_rows(manifest: Path | str, scratch: Path, seed: int | None) -> Iterator[Row]:
    """The rows, shuffled over the whole manifest: on disk, since a large one would not fit in memory."""
    rows = ManifestRows(manifest_files(manifest)).rows()
    if seed is None:
        yield from rows
        return
    starts, places = array("Q"), []
    with tempfile.TemporaryFile(dir=scratch) as spool:
        position = 0
        for row in rows:
            starts.append(position)
            places.append(row.place)
            position += spool.write(row.line)
        ends = [*starts[1:], position]
        for number in np.random.default_rng(seed).permutation(len(starts)):
            spool.seek(starts[number])
            yield Row(spool.read(ends[number] - starts[number]), places[number])


def _write_shard(shard: _Shard) -> dict[str, Any]:
    """Write one shard unless it is there: audio first, then its cuts, then the note that it is whole."""
    note = shard.state / f"{shard.number:06d}.json"
    if note.is_file():
        result: dict[str, Any] = io.read_json(note)
        return result
    number = f"{shard.number:06d}"
    tar, lines, skipped = shard.out / SHARD_AUDIO.format(number), [], []
    with io.atomic_path(shard.state / tar.name) as temporary:
        writer = TarWriter(str(temporary), shard_size=None)
        with writer:
            for row in shard.rows:
                try:
                    lines.append(_add(writer, row))
                except SslbenchError as error:
                    skipped.append((row.id, str(error)))
    if lines:
        (shard.state / tar.name).replace(tar)
        _write_lines(shard.state / f"cuts.{number}.jsonl.gz", lines)
        (shard.state / f"cuts.{number}.jsonl.gz").replace(shard.out / f"cuts.{number}.jsonl.gz")
    result = {"cuts": len(lines), "skipped": skipped}
    io.write_json(note, result)
    return result


def _add(writer: TarWriter, row: Row) -> dict[str, Any]:
    """Put one cut's audio and its description into the tar; returns the cut's line."""
    cut = row.cut()
    if not isinstance(cut, MonoCut) or cut.recording is None:
        raise AudioError(f"{cut.id}: is a {type(cut).__name__}, not a piece of one recording")
    wav = read_cut(cut)
    recording = to_shar_placeholder(cut.recording, cut)
    recording.sources[0].channels = recording.channel_ids = [0]
    suffix, data = _bytes_of(cut, wav.numpy())
    writer.write(f"{cut.id}{suffix}", bytes_io.BytesIO(data))
    about = json.dumps(recording.to_dict()) + "\n"
    writer.write(f"{cut.id}.json", bytes_io.BytesIO(about.encode()), count=False)
    line: dict[str, Any] = fastcopy(cut, recording=recording, start=0.0, channel=0).to_dict()
    return line


def _bytes_of(cut: MonoCut, wav: np.ndarray[Any, Any]) -> tuple[str, bytes]:
    """A file's suffix and content: the original's where the cut is all of it, else 16-bit flac."""
    import soundfile

    recording = cut.recording
    source = recording.sources[0]
    path = Path(str(source.source))
    whole = cut.start == 0 and cut.num_samples == recording.num_samples
    plain = source.type == "file" and path.suffix.lower() in COPIED and not recording.transforms
    if whole and plain and len(recording.sources) == 1 and recording.channel_ids == [0]:
        return path.suffix.lower(), path.read_bytes()
    stream = bytes_io.BytesIO()
    soundfile.write(stream, wav, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return ".flac", stream.getvalue()


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    with io.atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(text, compresslevel=5, mtime=0))
