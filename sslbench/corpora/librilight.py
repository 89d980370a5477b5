"""Libri-Light: 60,000 hours of unlabelled audiobooks, one cut per stretch of speech.

Layout (Kahn et al. 2020, arXiv:1912.07875): `small|medium|large/SPEAKER/BOOK/NAME.flac`, each with a
`NAME.json` that names the speaker and the `voice_activity` segments in seconds. Each segment becomes a cut,
a piece of the book's file, as in k2SSL; ids are those of lhotse's recipe. Audio without a json (as the
original's `segment_w_VAD` script leaves it) becomes one cut. Only headers are read here: decoding 60,000
hours is the job of `sslbench data audit`. Pieces of long flac files are slow to reach, so store them anew
with `sslbench data shar` before training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.corpora import PrepareOptions
from sslbench.corpora._checked import report_skipped
from sslbench.errors import SslbenchError

if TYPE_CHECKING:
    from lhotse import MonoCut

PARTS = ("small", "medium", "large")
SUFFIXES = (".flac", ".wav")
MIN_SEGMENT_S = 0.1


@dataclass(frozen=True)
class Book:
    """One audio file: its header and its stretches of speech, or why it is left out."""

    name: str
    """Path below the corpus without suffix: `small/100/a_book/01_chapter`."""
    path: str
    samples: int = 0
    speaker: str = ""
    segments: tuple[tuple[float, float], ...] = ()
    """(start, end) in seconds."""
    bad_segments: int = 0
    """Segments that lie outside the file or are shorter than 0.1 s."""
    reason: str = ""


def prepare(root: Path, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Make one manifest per part found under `root`: `small`, `medium`, `large`.

    Returns:
        The content of `corpus.json`.

    Raises:
        SslbenchError: none of the parts is there, or none of the files can be used.
    """
    from sslbench.data.manifests import CORPUS_FILE, write_corpus

    options.refuse_preset("librilight")
    home = root.resolve()
    found = [part for part in PARTS if (home / part).is_dir()]
    if not found:
        raise SslbenchError(f"{home}: holds none of small, medium, large; check --root")
    skipped: list[dict[str, Any]] = []
    counts = {"files": 0}
    facts: dict[str, Any] = {"bad_segments": 0}
    splits = {part: _cuts(home, part, options, skipped, counts, facts) for part in found}
    content = write_corpus(out, "librilight", splits, synthetic=False, skipped=skipped, facts=facts)
    if not content["splits"]:
        (out / CORPUS_FILE).unlink()  # an empty corpus is no finished one
    report_skipped(out, "librilight", counts["files"], skipped)
    return content


def _cuts(
    home: Path,
    part: str,
    options: PrepareOptions,
    skipped: list[dict[str, Any]],
    counts: dict[str, int],
    facts: dict[str, Any],
) -> Iterator[MonoCut]:
    """The cuts of one part, a file at a time; only the paths are held in memory."""
    from sslbench.data.parallel import ordered
    from sslbench.progress import Progress

    paths = sorted(path for path in (home / part).rglob("*") if path.suffix.lower() in SUFFIXES)
    paths = options.limited(paths, str)

    def books() -> Iterator[MonoCut]:
        with Progress(f"{part}: files", len(paths)) as progress:
            for book in ordered(read_book, [(home, path) for path in paths], options.jobs):
                progress.advance()
                counts["files"] += 1
                facts["bad_segments"] += book.bad_segments
                if book.reason:
                    skipped.append({"id": book.name, "path": book.path, "reason": book.reason})
                else:
                    yield from cuts_of(book)

    return islice(books(), options.limit)


def read_book(place: tuple[Path, Path]) -> Book:
    """Read the header and the json of (corpus folder, audio file); never raises for a bad file."""
    import soundfile

    home, path = place
    name = path.relative_to(home).with_suffix("").as_posix()
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        return Book(name, str(path), reason=f"not readable as audio ({str(error).rsplit(': ', 1)[-1]})")
    if info.samplerate != SAMPLE_RATE_HZ or info.channels != 1:
        reason = f"{info.samplerate} Hz, {info.channels} channels instead of 16 kHz mono"
        return Book(name, str(path), reason=reason)
    length_s = info.frames / SAMPLE_RATE_HZ
    about = path.with_suffix(".json")
    if not about.is_file():
        parts = Path(name).parts
        return Book(name, str(path), info.frames, parts[1] if len(parts) > 2 else "", ((0.0, length_s),))
    try:
        content = json.loads(about.read_text(encoding="utf-8"))
        speaker = str(content["speaker"])
        segments = [(float(start), float(end)) for start, end in content["voice_activity"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{about.name} lacks a speaker or voice_activity ({type(error).__name__}: {error})"
        return Book(name, str(path), reason=reason)
    good = tuple(
        (start, min(end, length_s))
        for start, end in segments
        if start >= 0 and min(end, length_s) - start >= MIN_SEGMENT_S
    )
    if not good:
        return Book(name, str(path), reason="no stretch of speech in it")
    return Book(name, str(path), info.frames, speaker, good, len(segments) - len(good))


def cuts_of(book: Book) -> Iterator[MonoCut]:
    """One cut per stretch of speech, its times on the sample grid."""
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

    source = AudioSource("file", [0], book.path)
    recording = Recording(book.name, [source], SAMPLE_RATE_HZ, book.samples, book.samples / SAMPLE_RATE_HZ)
    for number, (start, end) in enumerate(book.segments):
        first, last = round(start * SAMPLE_RATE_HZ), min(round(end * SAMPLE_RATE_HZ), book.samples)
        begin_s, seconds = first / SAMPLE_RATE_HZ, (last - first) / SAMPLE_RATE_HZ
        name = f"{book.name}_{number}"
        supervision = SupervisionSegment(
            name, book.name, 0.0, seconds, 0, language="English", speaker=book.speaker
        )
        yield MonoCut(name, begin_s, seconds, 0, [supervision], recording=recording)
