"""Manifests: one lhotse CutSet per split, a `corpus.json` that describes them, and the cuts left out.

A corpus is a folder: `<split>.jsonl.gz`, `corpus.json`, `skipped.jsonl`. `corpus.json` is written last,
so its presence says that the folder is complete.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench import io
from sslbench.errors import CorruptFileError, SslbenchError, did_you_mean
from sslbench.report.schema import Data

if TYPE_CHECKING:
    from lhotse import CutSet, MonoCut

SUFFIX = ".jsonl.gz"
CORPUS_FILE = "corpus.json"
SKIPPED_FILE = "skipped.jsonl"


@dataclass(frozen=True)
class Described:
    """What a manifest holds: the result row's data entry, a checksum of content, the number of cuts."""

    data: Data
    sha256: str
    cuts: int


def split_name(path: Path | str) -> str:
    """The split of a manifest file: its name without `.jsonl.gz` or `.jsonl`."""
    return Path(path).name.removesuffix(".gz").removesuffix(".jsonl")


def splits(folder: Path | str) -> list[str]:
    """The split names in a corpus folder, sorted."""
    return sorted(split_name(path) for path in Path(folder).glob("*" + SUFFIX))


def open_manifest(path: Path | str) -> CutSet:
    """Open a manifest lazily: cuts are read as they are iterated.

    Args:
        path: a `.jsonl.gz` (or `.jsonl`) file of lhotse cuts, or a Shar folder.

    Raises:
        SslbenchError: missing, without a single cut, or a Shar folder that lacks a shard's audio.
        CorruptFileError: not a manifest of cuts.
    """
    from lhotse import CutSet

    from sslbench.data.rows import ManifestRows

    files = manifest_files(path)
    _check_first(path, next(iter(read_rows(files[0])), None))
    return CutSet(ManifestRows(files))


def _check_first(path: Path | str, row: Any) -> None:
    if row is None:
        raise SslbenchError(f"{path}: holds no cuts; prepare the corpus again")
    kind = row.get("type") if isinstance(row, dict) else None
    if kind is None or not str(kind).endswith("Cut"):
        raise CorruptFileError(f"{path}: holds {kind or 'rows'}, not cuts; 'lhotse cut simple' makes cuts")


def manifest_files(path: Path | str) -> list[Path]:
    """The files that a manifest consists of: itself, or the cut files of a Shar folder.

    Raises:
        SslbenchError: neither; or a shard without its audio.
    """
    from sslbench.data.rows import audio_of, shards_of

    path = Path(path)
    shards = shards_of(path) if path.is_dir() else []
    if not shards:
        _check_exists(path)
        return [path]
    for shard in shards:
        tar = audio_of(shard)
        if tar is None or not Path(tar).is_file():
            raise SslbenchError(
                f"{path}: shard {shard.name} lacks its audio {Path(tar or '?').name}; "
                "run 'sslbench data shar' again"
            )
    return shards


def _check_exists(path: Path) -> None:
    if path.is_dir():
        raise SslbenchError(
            f"{path}: is a folder; name one of its splits: {', '.join(splits(path)) or 'none'}"
        )
    if not path.is_file():
        known = splits(path.parent) if path.parent.is_dir() else []
        hint = did_you_mean(split_name(path), known) if known else "run 'sslbench data prepare' first"
        raise SslbenchError(f"{path}: no such manifest; {hint}")


def read_rows(path: Path | str) -> Iterator[dict[str, Any]]:
    """The cuts of a manifest or Shar folder as dicts, without building lhotse objects.

    Raises:
        SslbenchError: missing.
        CorruptFileError: torn or not JSON lines.
    """
    from sslbench.data.rows import lines_of

    for file in manifest_files(path):
        for number, line in enumerate(lines_of(file)):
            try:
                row = json.loads(line)
            except ValueError as error:
                what = "is not a manifest" if number == 0 else f"is damaged in line {number + 1}"
                raise CorruptFileError(f"{file}: {what} ({error}); prepare the corpus again") from None
            yield row


def describe(path: Path | str) -> Described:
    """Summarize a manifest by reading it once.

    The checksum covers ids, times, labels and (where known) the checksums of the samples; it does not
    cover where the audio lies or the order of cuts, so the same data has the same checksum everywhere.

    Raises:
        SslbenchError: missing or empty.
        CorruptFileError: damaged.
    """
    path = Path(path)
    digests, seconds, first = bytearray(), 0.0, None
    for row in read_rows(path):
        if first is None:
            _check_first(path, row)
            first = row
        digests += bytes.fromhex(_content_digest(row))  # 32 bytes per cut: all that grows with the corpus
        seconds += _seconds(path, row)
    if first is None:
        raise SslbenchError(f"{path}: holds no cuts; prepare the corpus again")
    corpus, synthetic = _origin(path.parent, first)
    data = Data(corpus=corpus, split=split_name(path), synthetic=synthetic, hours=round(seconds / 3600, 6))
    return Described(data, _unordered_sha256(digests), len(digests) // 32)


def _seconds(path: Path, row: dict[str, Any]) -> float:
    """A cut's duration, which a mixed cut's row does not state."""
    from lhotse.cut.set import deserialize_cut

    try:
        return float(row["duration"] if "duration" in row else deserialize_cut(dict(row)).duration)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"{path}: {row.get('id')!r} is not a cut ({error!r}); prepare it again"
        ) from None


def _unordered_sha256(digests: bytearray) -> str:
    """The checksum of a set of 32-byte digests, whatever their order: sorted, as hex lines."""
    import numpy as np

    table = np.frombuffer(bytes(digests), dtype=">u8").reshape(-1, 4)
    order = np.lexsort(table.T[::-1])
    total = hashlib.sha256()
    for number, place in enumerate(order):
        total.update(b"\n" * (number > 0) + digests[32 * place : 32 * place + 32].hex().encode())
    return total.hexdigest()


def _content_digest(row: dict[str, Any]) -> str:
    recording = row.get("recording") or {}
    content = {key: value for key, value in row.items() if key not in ("recording", "features")}
    content["samples"] = [recording.get("sampling_rate"), recording.get("num_samples")]
    return io.sha256_json(content)


def _origin(folder: Path, row: dict[str, Any]) -> tuple[str, bool]:
    """Corpus name and whether it is synthetic: from `corpus.json`, else from a cut (derived manifests)."""
    if (folder / CORPUS_FILE).is_file():
        facts = io.read_json(folder / CORPUS_FILE)
        return str(facts["corpus"]), bool(facts["synthetic"])
    custom = row.get("custom") or {}
    return str(custom.get("corpus", folder.resolve().name)), bool(custom.get("synthetic", False))


def write_manifest(cuts: Iterable[MonoCut], path: Path | str) -> int:
    """Write cuts as `.jsonl.gz`, atomically and with the same bytes for the same cuts.

    Returns:
        The number of cuts written.
    """
    count = 0
    # neither a time stamp nor a file name in the gzip header: equal cuts give equal files
    with (
        io.atomic_path(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=5) as stream,
    ):
        for cut in cuts:
            stream.write((json.dumps(cut.to_dict(), ensure_ascii=False) + "\n").encode())
            count += 1
    return count


def write_corpus(
    folder: Path | str,
    corpus: str,
    split_cuts: Mapping[str, Iterable[MonoCut]],
    *,
    synthetic: bool,
    skipped: list[dict[str, Any]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a corpus folder; `corpus.json` comes last.

    Args:
        folder: where the manifests go; files of the same names are replaced.
        corpus: the corpus name that results will carry.
        split_cuts: the cuts of every split, held nowhere if they are generated; an empty split is left
            out.
        synthetic: whether a machine spoke.
        skipped: `{"id", "reason"}` of every recording left out; written after the splits.
        facts: more entries for `corpus.json` (preset, seed, engine, …).

    Returns:
        The content of `corpus.json`.
    """
    folder = Path(folder)
    _remove_earlier(folder)
    skipped = [] if skipped is None else skipped
    entries: dict[str, Any] = {}
    for split, cuts in split_cuts.items():
        path = folder / (split + SUFFIX)
        if write_manifest(_of_corpus(cuts, corpus, synthetic), path) == 0:
            path.unlink()
            continue
        about = describe(path)
        entries[split] = {"cuts": about.cuts, "hours": about.data.hours, "sha256": about.sha256}
    io.write_jsonl(folder / SKIPPED_FILE, skipped)
    content = {"corpus": corpus, "synthetic": synthetic, "splits": entries, "skipped": len(skipped)}
    content.update(facts or {})
    io.write_json(folder / CORPUS_FILE, content)
    return content


def _of_corpus(cuts: Iterable[MonoCut], corpus: str, synthetic: bool) -> Iterator[MonoCut]:
    for cut in cuts:
        cut.custom = {**(cut.custom or {}), "corpus": corpus, "synthetic": synthetic}
        yield cut


def _remove_earlier(folder: Path) -> None:
    """Unmark the folder, and drop the splits of its earlier content."""
    path = folder / CORPUS_FILE
    if path.is_file():
        for split in io.read_json(path).get("splits", {}):
            (folder / (split + SUFFIX)).unlink(missing_ok=True)
        path.unlink()


def read_corpus(folder: Path | str) -> dict[str, Any]:
    """The `corpus.json` of a prepared folder. Raises `SslbenchError` when it is missing."""
    path = Path(folder) / CORPUS_FILE
    if not path.is_file():
        raise SslbenchError(
            f"{folder}: is not a prepared corpus (no {CORPUS_FILE}); run 'sslbench data prepare'"
        )
    content: dict[str, Any] = io.read_json(path)
    return content
