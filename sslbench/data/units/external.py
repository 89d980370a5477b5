"""Units made elsewhere: fairseq's label files (`.km`) with the list of audio they belong to (`.tsv`).

The list's first line is a root folder, every further one `RELATIVE_PATH<tab>SAMPLES`; line i of the label
file holds the labels of its i-th recording, separated by spaces (fairseq, examples/hubert/simple_kmeans).
HuBERT's feature extractor gives floor((T - 400) / 320) + 1 frames for T samples, ours ceil(T / 320): up to
two more. Frame i begins at sample 320·i in both, so only the tail differs; it is filled with the last label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from sslbench.data.manifests import open_manifest, write_manifest
from sslbench.data.skips import SkipLog
from sslbench.data.units.apply import KEY, beside
from sslbench.data.units.features import FRAME_SAMPLES, num_frames
from sslbench.errors import SslbenchError
from sslbench.io import sha256_file, write_json

RATE_HZ = 50.0
SLACK_FRAMES = 2  # window length and rounding
SLACK_SHARE = 0.02  # of long recordings, whose labels may come from windows pieced together
SLACK_SAMPLES = 160
NAMED_FAULTS = 5


def length_fits(labels: int, num_samples: int) -> bool:
    """Whether so many 50 Hz labels can belong to so many samples: within 2 frames + 2 %."""
    expected = num_samples / FRAME_SAMPLES
    return abs(labels - expected) <= SLACK_FRAMES + SLACK_SHARE * expected


@dataclass(frozen=True)
class _Entry:
    """One recording of the list."""

    line: int
    """In the label file, from 1."""
    samples: int
    offset: int
    """First byte of its labels."""


class LabelFile:
    """A `.km` file with its `.tsv`; only the places of the lines are held in memory."""

    def __init__(self, labels: Path | str, listing: Path | str, rate_hz: float = RATE_HZ) -> None:
        """Read the list and find the lines.

        Args:
            labels: the `.km` file.
            listing: the `.tsv` file.
            rate_hz: labels per second: 50, or a multiple of it (MFCC labels: 100), of which every second
                (third, …) is taken.

        Raises:
            SslbenchError: a missing file, a malformed line, or different numbers of lines.
        """
        self.path, self.listing = Path(labels), Path(listing)
        if rate_hz < RATE_HZ or rate_hz % RATE_HZ:
            raise SslbenchError(f"units import: --label_rate_hz {rate_hz:g} is no multiple of 50")
        self.step = int(rate_hz / RATE_HZ)
        for path in (self.path, self.listing):
            if not path.is_file():
                raise SslbenchError(f"{path}: no such file")
        offsets = self._offsets()
        self._entries: dict[str, _Entry] = {}
        self._stems: dict[str, str | None] = {}
        self._depths: set[int] = set()
        count = 0
        for count, (name, samples) in enumerate(self._listed(), 1):
            if count > len(offsets):
                continue
            self._entries[name] = _Entry(count, samples, offsets[count - 1])
            self._depths.add(name.count("/") + 1)
            stem = name.rsplit("/", 1)[-1]
            self._stems[stem] = None if stem in self._stems else name  # None: ambiguous
        if count != len(offsets):
            raise SslbenchError(
                f"{self.path}: has {len(offsets)} lines, but {self.listing} lists {count} recordings"
            )

    def _offsets(self) -> list[int]:
        offsets, position = [], 0
        with self.path.open("rb") as stream:
            for line in stream:
                offsets.append(position)
                position += len(line)
        return offsets

    def _listed(self) -> Iterator[tuple[str, int]]:
        with self.listing.open(encoding="utf-8") as stream:
            next(stream, None)
            for number, line in enumerate(stream, 2):
                name, tab, samples = line.rstrip("\n").rpartition("\t")
                if not tab or not samples.strip().isdigit():
                    raise SslbenchError(
                        f"{self.listing}:{number}: expected RELATIVE_PATH<tab>SAMPLES, "
                        f"got {line.strip()[:60]!r}"
                    )
                yield str(Path(name).with_suffix("")), int(samples)

    def find(self, cut: Cut) -> _Entry | None:
        """The entry of a cut's recording: by the end of its path, else by the recording's or cut's name."""
        recording: Any = getattr(cut, "recording", None)
        sources = recording.sources if recording is not None else []
        if sources and sources[0].type == "file":
            parts = Path(str(sources[0].source)).with_suffix("").parts
            for depth in sorted(self._depths, reverse=True):  # "b.wav" must not stand for "a/b.wav"
                entry = self._entries.get("/".join(parts[-depth:]))
                if entry is not None:
                    return entry
        for name in ([str(recording.id)] if recording is not None else []) + [str(cut.id)]:
            listed = self._stems.get(name.rsplit("/", 1)[-1])
            if listed is not None:
                return self._entries[listed]
        return None

    def labels_of(self, cut: Cut, entry: _Entry) -> list[int]:
        """The 50 Hz labels of a cut, ceil(T/320) of them.

        Raises:
            SslbenchError: they do not fit; names the line.
        """
        where = f"{self.path}:{entry.line}"
        with self.path.open("rb") as stream:
            stream.seek(entry.offset)
            words = stream.readline().split()
        if not words or not all(word.isdigit() for word in words):
            raise SslbenchError(f"{where}: labels must be whole numbers from 0 on")
        labels = [int(word) for word in words][:: self.step]
        recording: Any = getattr(cut, "recording", None)
        if recording is not None and abs(recording.num_samples - entry.samples) > SLACK_SAMPLES:
            raise SslbenchError(
                f"{self.listing}:{entry.line + 1}: {entry.samples} samples, but cut {cut.id} is of a "
                f"recording of {recording.num_samples}"
            )
        if not length_fits(len(labels), entry.samples):
            raise SslbenchError(
                f"{where}: {len(labels)} labels at {RATE_HZ:g} Hz for {entry.samples} samples, about "
                f"{num_frames(entry.samples)} expected"
            )
        return _piece(labels, cut, entry, where)


def _piece(labels: list[int], cut: Cut, entry: _Entry, where: str) -> list[int]:
    """A cut's part of its recording's labels: from the nearest frame to its start."""
    first, wanted = round(float(getattr(cut, "start", 0.0)) * RATE_HZ), num_frames(cut.num_samples)
    piece = labels[first : first + wanted]
    slack = SLACK_FRAMES + SLACK_SHARE * num_frames(entry.samples)
    if not piece or wanted - len(piece) > slack:
        raise SslbenchError(
            f"{where}: {len(labels)} labels do not reach cut {cut.id}, frames {first} to {first + wanted}"
        )
    return piece + piece[-1:] * (wanted - len(piece))


def import_labels(
    manifest: Path | str,
    labels: Path | str,
    listing: Path | str,
    out: Path | str,
    rate_hz: float = RATE_HZ,
    limit_share: float = 0.01,
) -> dict[str, int]:
    """Write a manifest with the labels of a `.km` file, in the order of the given manifest.

    Cuts that the list does not name are left out and named in `OUT.skipped.jsonl`.

    Args:
        manifest: cuts, whole recordings or pieces of them.
        labels: the `.km` file.
        listing: its `.tsv`.
        out: the labelled manifest, ending in `.jsonl.gz`.
        rate_hz: labels per second.
        limit_share: share of cuts without labels above which the work ends.

    Returns:
        `{"cuts": labelled, "skipped": left out, "frames": labels, "clusters": highest label + 1}`.

    Raises:
        SslbenchError: labels that do not fit (names the first lines), or too many cuts without any.
    """
    out, file = Path(out), LabelFile(labels, listing, rate_hz)
    skips = SkipLog(beside(out, "skipped.jsonl"), limit_share)
    faults: list[str] = []
    counts = {"cuts": 0, "skipped": 0, "frames": 0, "clusters": 0}

    def labelled() -> Iterator[Cut]:
        for cut in open_manifest(manifest):
            skips.saw(1)
            entry = file.find(cut)
            if entry is None:
                skips.add(cut.id, f"{listing} does not name its recording")
                continue
            try:
                own = file.labels_of(cut, entry)
            except SslbenchError as error:
                faults.append(str(error))
                if len(faults) >= NAMED_FAULTS:
                    break
                continue
            counts["frames"] += len(own)
            counts["clusters"] = max(counts["clusters"], max(own) + 1)
            cut.custom = {**(cut.custom or {}), KEY: " ".join(map(str, own))}
            yield cut
        skips.check()
        if faults:
            raise SslbenchError("labels that do not fit their audio: " + "; ".join(faults))
        if counts["frames"] == 0:
            raise SslbenchError(f"{manifest}: no cut could be labelled from {labels}")

    counts["cuts"] = write_manifest(labelled(), out)
    counts["skipped"] = skips.count
    made_of = {
        "labels": str(labels),
        "labels_sha256": sha256_file(labels),
        "listing_sha256": sha256_file(listing),
    }
    write_json(beside(out, "meta.json"), {**made_of, **counts, "sha256": sha256_file(out)})
    return counts
