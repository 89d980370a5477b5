"""The parts of a speech corpus with transcripts, from manifests or from LibriSpeech's own layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from sslbench.data.manifests import open_manifest, splits
from sslbench.errors import SslbenchError
from sslbench.progress import track

STARTS = {"train": ("train",), "dev": ("dev", "valid"), "test": ("test",)}


def open_parts(root: Path, wanted: Mapping[str, Any]) -> dict[str, list[Cut]]:
    """The cuts of train, dev and test.

    Args:
        root: a folder of manifests, or of LibriSpeech's split folders (or their parent).
        wanted: split name per part, and optionally `kinds`: of utterances, where a corpus marks them.

    Raises:
        SslbenchError: neither, or a split is missing, naming all that are.
    """
    home = librispeech_home(root)
    if home is None or splits(root):
        return {
            part: of_kinds(open_split(root, wanted[part], starts), wanted.get("kinds", []))
            for part, starts in STARTS.items()
        }
    missing = [wanted[part] for part in STARTS if not (home / wanted[part]).is_dir()]
    if missing:
        held = ", ".join(sorted(path.parent.parent.parent.name for path in _transcript_files(home)))
        raise SslbenchError(f"{home}: lacks {', '.join(missing)} (has {held or 'no split'})")
    return {part: list(librispeech_cuts(home, wanted[part])) for part in STARTS}


def open_split(folder: Path, wanted: str, starts: tuple[str, ...]) -> list[Cut]:
    """The cuts of a split, by its name or else the only split that starts so.

    Raises:
        SslbenchError: neither is there.
    """
    known = splits(folder)
    if not known:
        raise SslbenchError(
            f"{folder}: holds no manifests and no LibriSpeech splits; run 'sslbench data prepare' first"
        )
    if wanted not in known:
        alike = [name for name in known if name.startswith(starts)]
        if len(alike) != 1:
            raise SslbenchError(f"{folder}: has no split {wanted!r} (its splits: {', '.join(known)})")
        wanted = alike[0]
    return list(open_manifest(folder / f"{wanted}.jsonl.gz"))


def of_kinds(cuts: list[Cut], kinds: list[str]) -> list[Cut]:
    """Cuts of the wanted kinds, where the corpus marks kinds at all."""
    marked = any(label(cut, "kind") is not None for cut in cuts)
    return [cut for cut in cuts if label(cut, "kind") in kinds] if marked and kinds else cuts


def label(cut: Cut, name: str) -> Any:
    """A label of a cut or of its first supervision; None without it."""
    own = (cut.custom or {}).get(name)
    if own is not None or not cut.supervisions:
        return own
    return (cut.supervisions[0].custom or {}).get(name)


def text_of(cut: Cut) -> str:
    """The transcript, upper case; empty without one."""
    return " ".join(s.text or "" for s in cut.supervisions).upper().strip()


def speaker_of(cut: Cut) -> str:
    """The first supervision's speaker, or the cut's own id."""
    return str((cut.supervisions[0].speaker if cut.supervisions else None) or cut.id)


def librispeech_home(root: Path) -> Path | None:
    """The folder with LibriSpeech's splits: `root` or `root/LibriSpeech`; None when there is none."""
    for home in (root / "LibriSpeech", root):
        if home.is_dir() and next(_transcript_files(home), None) is not None:
            return home
    return None


def _transcript_files(home: Path) -> Any:
    """One transcript per split is enough to know it."""
    for split in sorted(path for path in home.iterdir() if path.is_dir()):
        found = next(split.glob("*/*/*.trans.txt"), None)
        if found is not None:
            yield found


def librispeech_cuts(home: Path, split: str) -> list[MonoCut]:
    """The utterances that a split's transcripts name. Raises `SslbenchError` when a file is missing."""
    files = sorted((home / split).glob("*/*/*.trans.txt"))
    if not files:
        raise SslbenchError(f"{home / split}: holds no SPEAKER/CHAPTER/*.trans.txt; is the split unpacked?")
    cuts = []
    for file in track(files, f"{split}: chapters", len(files)):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, _, text = line.strip().partition(" ")
            if name:
                cuts.append(_librispeech_cut(file.parent / f"{name}.flac", name, text))
    return cuts


def _librispeech_cut(path: Path, name: str, text: str) -> MonoCut:
    if not path.is_file():
        raise SslbenchError(f"{path}: is missing, but its chapter's transcript names it")
    return file_cut(path, name, text, name.split("-")[0], "librispeech")


def file_cut(path: Path, name: str, text: str, speaker: str, corpus: str) -> MonoCut:
    """A whole file as a cut with one supervision.

    Raises:
        SslbenchError: the file's header cannot be read.
    """
    try:
        recording = Recording.from_file(path, recording_id=name)
    except Exception as error:  # soundfile's and lhotse's own errors, of many kinds
        raise SslbenchError(f"{path}: cannot be read as audio ({type(error).__name__})") from None
    said = SupervisionSegment(name, name, 0.0, recording.duration, text=text, speaker=speaker)
    custom = {"corpus": corpus, "synthetic": False}
    return MonoCut(name, 0.0, recording.duration, 0, [said], recording=recording, custom=custom)
