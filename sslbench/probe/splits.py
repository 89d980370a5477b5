"""The parts of a speech corpus with transcripts, from manifests or from LibriSpeech's own layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lhotse import MonoCut
from lhotse.cut import Cut

from sslbench.errors import SslbenchError
from sslbench.probe.files import (
    STARTS,
    AudioFile,
    file_cuts,
    is_prepared,
    label,
    manifest_parts,
    whole_or_counted,
)

# train-clean-100, dev-clean, test-clean (the data card of huggingface.co/datasets/s3prl/superb)
OFFICIAL_FILES = {"librispeech": 28_539 + 2_703 + 2_620}


def open_parts(root: Path, wanted: Mapping[str, Any]) -> dict[str, list[Cut]]:
    """The cuts of train, dev and test.

    Args:
        root: a folder of manifests, or of LibriSpeech's split folders (or their parent).
        wanted: split name per part, and optionally `kinds`: of utterances, where a corpus marks them.

    Raises:
        SslbenchError: neither, or a split is missing, naming all that are.
    """
    if is_prepared(root):
        parts = manifest_parts(root, wanted)
        whole_or_counted(parts, OFFICIAL_FILES)
        return {part: of_kinds(cuts, wanted.get("kinds", [])) for part, cuts in parts.items()}
    home = librispeech_home(root)
    if home is None:
        raise SslbenchError(
            f"{root}: holds no manifests and no LibriSpeech splits; run 'sslbench data prepare' first"
        )
    missing = [wanted[part] for part in STARTS if not (home / wanted[part]).is_dir()]
    if missing:
        held = ", ".join(sorted(path.parent.parent.parent.name for path in _transcript_files(home)))
        raise SslbenchError(f"{home}: lacks {', '.join(missing)} (has {held or 'no split'})")
    found: dict[str, list[Cut]] = {part: list(librispeech_cuts(home, wanted[part])) for part in STARTS}
    whole_or_counted(found, OFFICIAL_FILES)
    return found


def of_kinds(cuts: list[Cut], kinds: list[str]) -> list[Cut]:
    """Cuts of the wanted kinds, where the corpus marks kinds at all."""
    marked = any(label(cut, "kind") is not None for cut in cuts)
    return [cut for cut in cuts if label(cut, "kind") in kinds] if marked and kinds else cuts


def text_of(cut: Cut) -> str:
    """The transcript, upper case; empty without one."""
    return " ".join(s.text or "" for s in cut.supervisions).upper().strip()


def librispeech_home(root: Path) -> Path | None:
    """The folder with LibriSpeech's splits: `root` or `root/LibriSpeech`; None when there is none."""
    for home in (root / "LibriSpeech", root):
        if home.is_dir() and next(_transcript_files(home), None) is not None:
            return home
    return None


def _transcript_files(home: Path) -> Iterator[Path]:
    """One transcript per split is enough to know it."""
    for split in sorted(path for path in home.iterdir() if path.is_dir()):
        found = next(split.glob("*/*/*.trans.txt"), None)
        if found is not None:
            yield found


def librispeech_cuts(home: Path, split: str) -> list[MonoCut]:
    """The utterances that a split's transcripts name, with their texts.

    Raises:
        SslbenchError: no transcript, or more than 1 % of the files are missing or unreadable.
    """
    chapters = sorted((home / split).glob("*/*/*.trans.txt"))
    if not chapters:
        raise SslbenchError(f"{home / split}: holds no SPEAKER/CHAPTER/*.trans.txt; is the split unpacked?")
    files, texts = [], {}
    for chapter in chapters:
        for line in chapter.read_text(encoding="utf-8").splitlines():
            name, _, text = line.strip().partition(" ")
            if name:
                files.append(AudioFile(chapter.parent / f"{name}.flac", name, name.split("-")[0]))
                texts[name] = text
    cuts = file_cuts(files, "librispeech")
    for cut in cuts:
        cut.supervisions[0].text = texts[cut.id]
    return cuts
