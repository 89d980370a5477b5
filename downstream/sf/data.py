"""Sentences with slots: from Audio SNIPS as s3prl lays it out, or from manifests with IOB tags."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from sslbench.errors import SslbenchError
from sslbench.probe.files import UNREADABLE_SHARE, AudioFile, file_cuts, label, whole_or_counted
from sslbench.probe.splits import open_parts, text_of

SENTENCES, SLOTS = "all.iob.snips.txt", "slots.txt"
FOLDERS = {"train": "train", "dev": "valid", "test": "test"}
CORPUS = "audio_snips"
# SNIPS's 13,084, 700 and 700 sentences, by eight, four and four of the sixteen voices
OFFICIAL_FILES = 13_084 * 8 + 700 * 4 + 700 * 4


@dataclass(frozen=True)
class Sentence:
    """A clip, its words, and each word's slot ("O" for none; neighbours of one slot are one value)."""

    cut: Cut
    words: list[str]
    slots: list[str]


def is_snips(root: Path) -> bool:
    """Whether this is the layout of s3prl's `preprocess/snips_prepare_data.sh`."""
    return (root / SENTENCES).is_file() or (root / SLOTS).is_file()


def read_snips(root: Path, speakers: dict[str, list[str]]) -> tuple[dict[str, list[Sentence]], list[str]]:
    """The three parts of Audio SNIPS, and the slot names.

    Args:
        root: holds `all.iob.snips.txt`, `slots.txt` and the folders train, valid and test.
        speakers: the voices of each part; a file's name starts with its voice.

    Raises:
        SslbenchError: naming everything of the layout that is missing, a line that does not fit, or more than
            1 % of a part's files have no line (fewer are left out and named; s3prl leaves out any number).
    """
    missing = [name for name in (SENTENCES, SLOTS) if not (root / name).is_file()]
    missing += [f"{name}/" for name in FOLDERS.values() if not (root / name).is_dir()]
    if missing:
        raise SslbenchError(
            f"{root}: lacks {', '.join(missing)}; s3prl's preprocess/snips_prepare_data.sh makes them"
        )
    slots = _snips_slots(root / SLOTS)
    known = {"O", *slots}
    tagged: dict[str, tuple[int, str]] = {}
    for number, line in enumerate((root / SENTENCES).read_text(encoding="utf-8").splitlines(), 1):
        name, space, tags = line.partition(" ")
        if space:
            tagged[name] = (number, tags)
    parts: dict[str, list[Sentence]] = {}
    for part, folder in FOLDERS.items():
        wanted = tuple(speakers[part])
        paths = [path for path in sorted((root / folder).rglob("*.wav")) if path.stem.startswith(wanted)]
        unknown = [path.stem for path in paths if path.stem not in tagged]
        what = f"{len(unknown)} of {len(paths)} files without a line in {SENTENCES}" if paths else "no file"
        what = f"{root / folder}: {what} of the voices {', '.join(wanted)} {unknown[:3]}"
        if not paths or len(unknown) > UNREADABLE_SHARE * len(paths):
            raise SslbenchError(what)
        if unknown:
            print(f"{what}: left out", file=sys.stderr)
        files = [AudioFile(p, p.stem, p.stem.split("-")[0]) for p in paths if p.stem in tagged]
        cuts = file_cuts(files, CORPUS)
        parts[part] = [_snips_sentence(cut, root / SENTENCES, *tagged[cut.id], known) for cut in cuts]
    whole_or_counted({p: [s.cut for s in own] for p, own in parts.items()}, {CORPUS: OFFICIAL_FILES})
    return parts, slots


def _snips_slots(path: Path) -> list[str]:
    first, *names = path.read_text(encoding="utf-8").split("\n")
    if first != "O":  # the commonest tag comes first; s3prl drops that line unseen
        raise SslbenchError(
            f"{path}:1: is {first!r} where 'O', the tag of no slot, belongs; s3prl's "
            "preprocess/snips_prepare_data.sh makes this file"
        )
    return [name for name in names if name]


def _snips_sentence(cut: Cut, path: Path, number: int, line: str, known: set[str]) -> Sentence:
    """`BOS words EOS<tab>O tags intent`: the first and last of either side are not said."""
    text, _, tags = line.strip().partition("\t")
    words, slots = text.split(" ")[1:-1], tags.split(" ")[1:-1]
    if len(words) != len(slots):
        raise SslbenchError(f"{path}:{number}: {cut.id} has {len(words)} words but {len(slots)} slot tags")
    unknown = sorted(set(slots) - known)
    if unknown:
        raise SslbenchError(
            f"{path}:{number}: {cut.id} has the slot {', '.join(unknown)}, which {SLOTS} lacks; "
            "s3prl's preprocess/snips_prepare_data.sh makes both files"
        )
    return Sentence(cut, words, slots)


def read_manifests(root: Path, settings: dict[str, Any]) -> tuple[dict[str, list[Sentence]], list[str]]:
    """The three parts of a corpus with IOB tags, and the slot names, sorted.

    Raises:
        SslbenchError: a split is missing, or has no tagged cut, or a cut's tags do not fit its words.
    """
    parts: dict[str, list[Sentence]] = {}
    for part, cuts in open_parts(root, settings).items():
        parts[part] = [_tagged(cut, label(cut, "slots")) for cut in cuts if label(cut, "slots") is not None]
        if not parts[part]:
            raise SslbenchError(f"{root}: no cut of {part} ({settings[part]}) carries slot tags (slots)")
    names = {slot for sentences in parts.values() for s in sentences for slot in s.slots} - {"O"}
    return parts, sorted(names)


def _tagged(cut: Cut, tags: str) -> Sentence:
    words = text_of(cut).split()
    slots = [re.sub(r"^[BI]-", "", tag) for tag in tags.split()]
    if len(words) != len(slots):
        raise SslbenchError(f"{cut.id}: has {len(words)} words but {len(slots)} slot tags")
    return Sentence(cut, words, slots)
