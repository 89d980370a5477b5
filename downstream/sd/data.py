"""Recordings with turns: from Kaldi-style folders (Libri2Mix as s3prl prepares it) or manifests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lhotse.cut import Cut
from numpy.typing import NDArray

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.downstream.sd.der import Turn
from sslbench.errors import SslbenchError
from sslbench.probe.files import AudioFile, file_cuts, manifest_parts, whole_or_counted

PARTS = ("train", "dev", "test")
FILES = ("wav.scp", "segments", "utt2spk", "reco2dur", "rttm")
CORPUS = "libri2mix"
# mixtures of train-100, dev and test (Cosentino et al. 2020, arXiv 2005.11262)
OFFICIAL_FILES = 13_900 + 3_000 + 3_000


@dataclass(frozen=True)
class Conversation:
    """One recording."""

    cut: Cut
    turns: list[Turn]
    """Of training labels."""
    scored: list[Turn]
    """What the error rate compares with."""


def is_kaldi(root: Path) -> bool:
    """Whether at least one part is a Kaldi-style folder."""
    return any((root / part / "wav.scp").is_file() for part in PARTS)


def read_kaldi(root: Path) -> dict[str, list[Conversation]]:
    """The three parts of `scripts/prepare_diarization.py` of s3prl/LibriMix.

    Raises:
        SslbenchError: naming every missing file, or the recording at fault.
    """
    missing = [f"{part}/{name}" for part in PARTS for name in FILES if not (root / part / name).is_file()]
    if missing:
        raise SslbenchError(
            f"{root}: lacks {', '.join(missing)}; s3prl/LibriMix's scripts/prepare_diarization.py makes them"
        )
    parts = {part: _kaldi_part(root / part) for part in PARTS}
    whole_or_counted({p: [talk.cut for talk in own] for p, own in parts.items()}, {CORPUS: OFFICIAL_FILES})
    return parts


def _kaldi_part(folder: Path) -> list[Conversation]:
    speaker = dict(_rows(folder / "utt2spk", 2))
    turns: dict[str, list[Turn]] = {}
    for utt, rec, start, end in _rows(folder / "segments", 4):
        if utt not in speaker:
            raise SslbenchError(f"{folder / 'utt2spk'}: lacks {utt}, which segments name")
        turns.setdefault(rec, []).append(Turn(float(start), float(end), speaker[utt]))
    scored: dict[str, list[Turn]] = {}
    for row in _rows(folder / "rttm", None):
        if row[0] == "SPEAKER":
            begins = float(row[3])
            scored.setdefault(row[1], []).append(Turn(begins, begins + float(row[4]), row[7]))
    files = []
    for rec, path in _rows(folder / "wav.scp", 2):
        if path.endswith("|"):
            raise SslbenchError(f"{folder / 'wav.scp'}: {rec} is a command; give a file")
        if rec not in turns or rec not in scored:
            what = "segments" if rec not in turns else "rttm"
            raise SslbenchError(f"{folder / what}: has no turn of {rec}, which wav.scp names")
        files.append(AudioFile(Path(path), rec, rec))
    return [Conversation(cut, turns[cut.id], scored[cut.id]) for cut in file_cuts(files, CORPUS)]


def _rows(path: Path, fields: int | None) -> list[list[str]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split(None, fields - 1) if fields else line.split()
        if not words:
            continue
        if (fields and len(words) != fields) or (not fields and len(words) < 8):
            raise SslbenchError(f"{path}:{number}: has {len(words)} fields, not {fields or '8 or more'}")
        rows.append([word.strip() for word in words])
    return rows


def read_manifests(root: Path, settings: dict[str, Any]) -> dict[str, list[Conversation]]:
    """The three parts of a corpus whose supervisions are turns.

    Raises:
        SslbenchError: a split is missing, or a cut names no speaker.
    """
    parts = manifest_parts(root, settings)
    return {part: [_conversation(cut) for cut in cuts] for part, cuts in parts.items()}


def _conversation(cut: Cut) -> Conversation:
    turns = [Turn(s.start, s.end, str(s.speaker)) for s in cut.supervisions if s.speaker]
    if not turns or len(turns) < len(cut.supervisions):
        raise SslbenchError(f"{cut.id}: diarization needs supervisions that each name a speaker")
    return Conversation(cut, turns, turns)


def frame_labels(
    turns: list[Turn], frames: int, stride: int, speakers: int, chunk: int
) -> NDArray[np.float32]:
    """(frames, speakers): 1 where a speaker talks, speakers in order of name.

    s3prl's rule (diarization/dataset.py): times are rounded to frames, and within a chunk a turn is marked
    from its start or up to its end; one that begins before and ends after the whole chunk is not marked.
    """
    names = sorted({turn.speaker for turn in turns})
    labels = np.zeros((frames, speakers), dtype=np.float32)
    for turn in turns:
        start, end = (int(np.rint(t * SAMPLE_RATE_HZ / stride)) for t in (turn.start, turn.end))
        for first in range(0, frames, chunk):
            last = min(frames, first + chunk)
            begins, ends = first <= start < last, first < end <= last
            if begins or ends:
                within = slice(start if begins else first, end if ends else last)
                labels[within, names.index(turn.speaker)] = 1.0
    return labels
