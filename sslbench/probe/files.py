"""What tasks read: corpus folders of manifests, and audio files of a corpus's official layout."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.data.manifests import open_manifest, splits
from sslbench.errors import SslbenchError

STARTS = {"train": ("train",), "dev": ("dev", "valid"), "test": ("test",)}
UNREADABLE_SHARE = 0.01
READERS = 8
EXACT = "exact_splits"
"""A task's setting: no split may stand in for another one."""


def is_prepared(root: Path) -> bool:
    """Whether a folder holds manifests (of 'sslbench data prepare'), rather than an official layout."""
    return bool(splits(root))


def manifest_parts(root: Path, names: Mapping[str, Any]) -> dict[str, list[Cut]]:
    """The cuts of train, dev and test of a corpus folder.

    Args:
        root: folder of manifests.
        names: the split of each part; one that is missing may be the only split that starts alike, unless
            `EXACT` is set.

    Raises:
        SslbenchError: a split is missing, naming all that are there.
    """
    found = {part: _split_named(root, part, names) for part in STARTS}
    return {part: list(open_manifest(root / f"{name}.jsonl.gz")) for part, name in found.items()}


def test_split(root: Path, settings: Mapping[str, Any]) -> str:
    """What a row calls its test set: the task's name for it, or the split that stands in for it."""
    if "test" in settings and is_prepared(root):
        found = _split_named(root, "test", settings)
        if found != settings["test"]:
            return found
    return str(settings.get("test_name", "test"))


def _split_named(root: Path, part: str, names: Mapping[str, Any]) -> str:
    known, wanted = splits(root), str(names[part])
    if wanted in known:
        return wanted
    if names.get(EXACT):
        raise SslbenchError(
            f"{root}: has no split {wanted!r} (its splits: {', '.join(known)}); tier 'full' takes no other"
        )
    alike = [name for name in known if name.startswith(STARTS[part])]
    if len(alike) != 1:
        raise SslbenchError(f"{root}: has no split {wanted!r} (its splits: {', '.join(known)})")
    return alike[0]


def label(cut: Cut, name: str) -> Any:
    """A cut's own label (`custom`, of the cut or its first supervision); None without."""
    own = (cut.custom or {}).get(name)
    if own is not None or not cut.supervisions:
        return own
    return (cut.supervisions[0].custom or {}).get(name)


def speaker(cut: Cut) -> str:
    """The cut's speaker, or its id where none is named."""
    found = cut.supervisions[0].speaker if cut.supervisions else None
    return str(found) if found is not None else str(cut.id)


@dataclass
class Missing:
    """Collects what a corpus lacks, so that one error names everything."""

    what: str
    """Task and corpus, for example "ks: Speech Commands v0.01"."""
    root: Path
    """The folder that was given."""
    hint: str
    """How to mend it."""
    lacks: list[str] = field(default_factory=list)

    def need(self, path: Path) -> Path:
        """Note a file or folder that is not there."""
        if not path.exists():
            self.lacks.append(
                str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)
            )
        return path

    def check(self) -> None:
        """Raise `SslbenchError` when something is missing."""
        if self.lacks:
            shown = ", ".join(self.lacks[:8]) + (
                f" and {len(self.lacks) - 8} more" if len(self.lacks) > 8 else ""
            )
            raise SslbenchError(f"{self.what} under {self.root}: lacks {shown}; {self.hint}")


@dataclass(frozen=True)
class AudioFile:
    """A recording of an official layout."""

    path: Path
    id: str
    speaker: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    start_s: float = 0.0
    duration_s: float | None = None


def file_cuts(files: Sequence[AudioFile], corpus: str) -> list[MonoCut]:
    """Cuts of audio files, from their headers; other sample rates are resampled when read.

    Unreadable or empty files are left out and named.

    Raises:
        SslbenchError: more than 1 % of the files are unusable.
    """
    with ThreadPoolExecutor(READERS) as pool:
        made = list(pool.map(lambda file: _cut(file, corpus), files))
    bad = [(file, cut) for file, cut in zip(files, made, strict=True) if isinstance(cut, str)]
    for file, reason in bad[:10]:
        print(f"{corpus}: {file.path} is left out: {reason}", file=sys.stderr)
    if len(bad) > UNREADABLE_SHARE * len(files):
        file, reason = bad[0]
        raise SslbenchError(
            f"{corpus}: {len(bad)} of {len(files)} files cannot be used, more than 1 %, "
            f"first {file.path}: {reason}; get them again"
        )
    return [cut for cut in made if not isinstance(cut, str)]


def _cut(file: AudioFile, corpus: str) -> MonoCut | str:
    import soundfile

    try:
        info = soundfile.info(str(file.path))
    except (soundfile.LibsndfileError, OSError) as error:
        return f"cannot be read as audio ({error})"
    if info.frames == 0:
        return "holds no samples"
    duration = info.frames / info.samplerate
    source = AudioSource("file", list(range(info.channels)), str(file.path))
    recording = Recording(file.id, [source], info.samplerate, info.frames, duration)
    if info.samplerate != SAMPLE_RATE_HZ:
        recording = recording.resample(SAMPLE_RATE_HZ)
    length = min(file.duration_s or recording.duration, recording.duration - file.start_s)
    segment = SupervisionSegment(
        file.id, file.id, 0.0, length, speaker=file.speaker, custom=dict(file.labels)
    )
    custom = {"corpus": corpus, "synthetic": False}
    return MonoCut(
        file.id, file.start_s, length, 0, recording=recording, supervisions=[segment], custom=custom
    )


def counted(corpus: str, found: int, official: int) -> str:
    """The corpus's name, with what is there when that is not the whole."""
    return corpus if found == official else f"{corpus} ({found} of {official} files)"


def whole_or_counted(parts: Mapping[str, Sequence[Cut]], official: Mapping[str, int]) -> None:
    """Name the corpus of cuts that were read from manifests as `counted` does.

    Args:
        parts: all clips of each part; their `custom` changes.
        official: clips of a whole corpus, by its name; other corpora are left alone.
    """
    found = sum(map(len, parts.values()))
    for cut in (cut for cuts in parts.values() for cut in cuts):
        custom = cut.custom or {}
        name = str(custom.get("corpus"))
        if name in official:
            cut.custom = {**custom, "corpus": counted(name, found, official[name])}


def labelled_parts(
    root: Path, settings: Mapping[str, Any], names: Sequence[str], task: str, official: str
) -> dict[str, list[Cut]]:
    """The cuts of a corpus folder that have all of some labels.

    Args:
        root: folder of manifests.
        settings: as `manifest_parts` takes them.
        names: of the labels.
        task: for the message.
        official: corpus of the task, for the message.

    Raises:
        SslbenchError: a part has none.
    """
    parts = {
        part: [cut for cut in cuts if all(label(cut, name) for name in names)]
        for part, cuts in manifest_parts(root, settings).items()
    }
    for part, cuts in parts.items():
        if not cuts:
            raise SslbenchError(
                f"{task}: {root}: no cut of {part} has the labels {', '.join(names)}; give the root of "
                f"{official}, or a corpus with such labels"
            )
    return parts


def lot(text: str) -> bytes:
    """What choices by lot sort by: of ids or names, the same on every machine."""
    return hashlib.sha256(text.encode()).digest()


def indexed(values: Iterable[str]) -> dict[str, int]:
    """Labels to indices, sorted."""
    return {value: number for number, value in enumerate(sorted(set(values)))}
