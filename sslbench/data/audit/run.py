"""The audit of one or several splits: in parallel, with memory of 16 bytes per cut."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sslbench.data.audit.checks import ERRORS, WARNINGS, Seen, check_rows
from sslbench.data.manifests import SUFFIX, manifest_files, split_name, splits
from sslbench.data.parallel import chunks, ordered
from sslbench.data.rows import ManifestRows, Row, lines_of, shards_of
from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.progress import Progress

CHUNK_ROWS = 16
NAMED_AT_MOST = 1000  # of each kind; all are counted


class Findings:
    """Counts every finding and names the first of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.named: dict[str, list[dict[str, str]]] = {}

    def add(self, kind: str, split: str, cut_id: str, detail: str) -> None:
        """Take in one finding."""
        self.counts[kind] += 1
        rows = self.named.setdefault(kind, [])
        if len(rows) < NAMED_AT_MOST:
            rows.append({"split": split, "id": cut_id, "detail": detail})

    def report(self) -> list[dict[str, Any]]:
        """Errors first, then warnings, in the order of their tables."""
        levels = {**dict.fromkeys(ERRORS, "error"), **dict.fromkeys(WARNINGS, "warning")}
        means = {**ERRORS, **WARNINGS}
        return [
            {
                "kind": kind,
                "level": level,
                "means": means[kind],
                "count": self.counts[kind],
                "cuts": self.named[kind],
            }
            for kind, level in levels.items()
            if self.counts[kind]
        ]


class _Split:
    """What is remembered of a split: two 8-byte checksums per cut, its speakers, counts."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, split_name(path)
        self.cuts, self.seconds = 0, 0.0
        self.audio, self.ids = array("Q"), array("Q")
        self.speakers: set[str] = set()
        self.with_text = self.with_units = 0
        self.first_without: dict[str, str] = {}

    def take(self, seen: Seen) -> None:
        """Remember a cut."""
        self.cuts, self.seconds = self.cuts + 1, self.seconds + seen.duration_s
        # an unreadable cut equals no other, also of another split
        alone = hash_of(f"{self.path} {self.cuts}")
        self.audio.append(int.from_bytes(seen.samples_hash or alone, "little"))
        self.ids.append(int.from_bytes(hash_of(seen.id), "little"))
        self.speakers.update(seen.speakers)
        self.with_text += seen.has_text
        self.with_units += seen.has_units
        for what, there in (("transcript_missing", seen.has_text), ("units_missing", seen.has_units)):
            if not there:
                self.first_without.setdefault(what, seen.id)

    def facts(self) -> dict[str, Any]:
        """For the report."""
        return {
            "split": self.name,
            "manifest": str(self.path),
            "cuts": self.cuts,
            "hours": round(self.seconds / 3600, 6),
            "speakers": len(self.speakers),
            "with_transcript": self.with_text,
            "with_units": self.with_units,
        }


def hash_of(text: str) -> bytes:
    """8 bytes that stand for a text."""
    import hashlib

    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def audit(paths: Iterable[Path], jobs: int = 1) -> dict[str, Any]:
    """Check manifests, Shar folders, or corpus folders with all their splits.

    Args:
        paths: what to check; several splits are also compared with each other.
        jobs: reading processes; the report does not depend on it.

    Returns:
        `{"ok", "splits": [...], "findings": [{"kind", "level", "means", "count", "cuts"}]}`; `ok` is false
        when a finding is an error.

    Raises:
        SslbenchError: a path that is no manifest, or one without a cut.
    """
    done, findings = [_Split(path) for path in _manifests(paths)], Findings()
    total = sum(_count(split.path) for split in done)
    with Progress("audit: cuts checked", total) as progress:
        for split in done:
            rows = _rows(split.path, split.name, findings)
            for batch in ordered(check_rows, chunks(rows, CHUNK_ROWS), jobs):
                for seen in batch:
                    split.take(seen)
                    for kind, detail in seen.findings:
                        findings.add(kind, split.name, seen.id, detail)
                progress.advance(len(batch))
            if split.cuts == 0 and not findings.counts["manifest_damaged"]:
                raise SslbenchError(f"{split.path}: holds no cuts; prepare the corpus again")
            _compare_within(split, findings)
    _compare_between(done, findings)
    found = findings.report()
    ok = not any(row["level"] == "error" for row in found)
    return {"ok": ok, "splits": [split.facts() for split in done], "findings": found}


def _manifests(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir() and not shards_of(path) and splits(path):
            found += [path / (name + SUFFIX) for name in splits(path)]
        else:
            manifest_files(path)  # raises when it is none
            found.append(path)
    if len({path.resolve() for path in found}) < len(found):
        raise SslbenchError("data audit: the same manifest is named twice")
    return found


def _count(path: Path) -> int:
    try:
        return sum(1 for file in manifest_files(path) for _ in lines_of(file))
    except CorruptFileError:
        return 0  # named when its rows are checked


def _rows(path: Path, split: str, findings: Findings) -> Iterator[Row]:
    """The rows up to where the manifest is damaged."""
    try:
        yield from ManifestRows(manifest_files(path)).rows()
    except CorruptFileError as error:
        findings.add("manifest_damaged", split, "-", str(error))


def _compare_within(split: _Split, findings: Findings) -> None:
    """Equal ids, equal audio, labels on some cuts only."""
    for kind, keys in (("duplicate_id", split.ids), ("duplicate_audio", split.audio)):
        for first, again in _named_pairs(split, _repeats(keys)):
            findings.add(kind, split.name, again, f"as {first}" if kind == "duplicate_audio" else "again")
    for kind, there in (("transcript_missing", split.with_text), ("units_missing", split.with_units)):
        if 0 < there < split.cuts:
            detail = f"first of {split.cuts - there} of {split.cuts} cuts"
            findings.add(kind, split.name, split.first_without[kind], detail)
            findings.counts[kind] += split.cuts - there - 1


def _compare_between(done: list[_Split], findings: Findings) -> None:
    """Audio and speakers that two splits share, unless both are for training (10 min within 1 h)."""
    for number, one in enumerate(done):
        for other in done[number + 1 :]:
            if one.name.startswith("train") and other.name.startswith("train"):
                continue
            where = f"{one.name} and {other.name}"
            for speaker in sorted(one.speakers & other.speakers):
                findings.add("speaker_in_two_splits", where, speaker, "speaker")
            audio, other_audio = np.frombuffer(one.audio, np.uint64), np.frombuffer(other.audio, np.uint64)
            _, places, others = np.intersect1d(audio, other_audio, return_indices=True)
            names, other_names = _names(one, set(places.tolist())), _names(other, set(others.tolist()))
            for place, match in zip(places.tolist(), others.tolist(), strict=True):
                findings.add("audio_in_two_splits", where, names[place], f"as {other_names[match]}")


def _repeats(keys: array[int]) -> list[tuple[int, int]]:
    """(first place, later place) of every key that comes again."""
    values = np.frombuffer(keys, np.uint64)
    order = np.argsort(values, kind="stable")
    same = np.flatnonzero(values[order][1:] == values[order][:-1])
    return sorted((int(order[i]), int(order[i + 1])) for i in same)


def _named_pairs(split: _Split, pairs: list[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    names = _names(split, {place for pair in pairs for place in pair})
    return ((names[first], names[again]) for first, again in pairs)


def _names(split: _Split, places: set[int]) -> dict[int, str]:
    """The ids at some places of a split, by reading its manifest again."""
    if not places:
        return {}
    rows = _rows(split.path, split.name, Findings())
    return {place: row.id for place, row in enumerate(rows) if place in places}
