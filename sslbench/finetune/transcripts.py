"""Transcripts on disk, in any of the forms people have: manifest, JSON lines, Kaldi text, trn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sslbench.errors import SslbenchError
from sslbench.io import read_jsonl, read_text

_TRN = re.compile(r"^(.*)\((\S+)\)$")


@dataclass(frozen=True)
class Transcript:
    """What was said, or recognised, in one utterance."""

    id: str
    text: str
    speaker: str | None = None


def read_transcripts(path: Path | str, unit: str = "word") -> dict[str, Transcript]:
    """Read a file of transcripts, keyed by utterance id, in the file's order.

    The name decides the form: `.trn` holds `words (id)` lines, `.jsonl` rows with `id` and `text`,
    `.jsonl.gz` a lhotse manifest (so do a Shar folder, and a `.jsonl` whose rows have supervisions),
    all else Kaldi's `id words`, with the speakers of a file `utt2spk` beside it.

    Args:
        path: the file, or Shar folder.
        unit: `phone` takes the phones of a manifest's cuts, by alignment or by the lexicon beside it; other
            forms hold them as text.

    Raises:
        SslbenchError: missing or empty file, a line that does not parse, or an id that comes twice.
    """
    path = Path(path)
    if not path.exists():
        raise SslbenchError(f"{path}: no such file; expected a manifest, .jsonl, .trn or Kaldi text file")
    found: dict[str, Transcript] = {}
    for transcript in _read(path, unit):
        if transcript.id in found:
            raise SslbenchError(f"{path}: utterance {transcript.id!r} comes twice")
        found[transcript.id] = transcript
    if not found:
        raise SslbenchError(f"{path}: holds no transcripts")
    return found


def _read(path: Path, unit: str) -> Iterator[Transcript]:
    if path.is_dir() or path.name.endswith(".jsonl.gz") or (path.suffix == ".jsonl" and _is_manifest(path)):
        return _from_manifest(path, unit)
    if path.suffix == ".jsonl":
        return _from_jsonl(path)
    return _from_trn(path) if path.suffix == ".trn" else _from_kaldi(path)


def _is_manifest(path: Path) -> bool:
    first = next(iter(read_jsonl(path)), {})
    return "supervisions" in first


def _from_manifest(path: Path, unit: str) -> Iterator[Transcript]:
    from sslbench.data.manifests import open_manifest
    from sslbench.data.phones import phones_of, read_lexicon

    lexicon = read_lexicon(path.parent)
    for cut in open_manifest(path):
        supervisions = cut.supervisions
        if not supervisions:
            raise SslbenchError(f"{path}: cut {cut.id} has no transcript")
        text = " ".join(supervision.text or "" for supervision in supervisions)
        if unit == "phone":
            text = " ".join(phones_of(cut, lexicon))
        yield Transcript(cut.id, text, supervisions[0].speaker)


def _from_jsonl(path: Path) -> Iterator[Transcript]:
    for number, row in enumerate(read_jsonl(path), 1):
        if not isinstance(row.get("id"), str) or not isinstance(row.get("text"), str):
            raise SslbenchError(f"{path}:{number}: a row needs the strings 'id' and 'text'")
        yield Transcript(row["id"], row["text"], row.get("speaker"))


def _from_kaldi(path: Path) -> Iterator[Transcript]:
    beside = path.with_name("utt2spk")  # of a data folder
    known = [line.split() for line in read_text(beside).splitlines()] if beside.is_file() else []
    speakers = {pair[0]: pair[1] for pair in known if len(pair) == 2}
    for line in read_text(path).split("\n"):
        if line.strip():
            identifier, *text = line.split(None, 1)
            yield Transcript(identifier, text[0].rstrip() if text else "", speakers.get(identifier))


def _from_trn(path: Path) -> Iterator[Transcript]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        match = _TRN.match(line.strip())
        if match is None:
            raise SslbenchError(f"{path}:{number}: expected 'words (utterance-id)'")
        yield Transcript(match.group(2), match.group(1).strip())
