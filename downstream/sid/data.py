"""Speaker identification's own split: the same speakers in train, dev and test, other recordings."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from sslbench.corpora import _voxceleb as voxceleb
from sslbench.data.manifests import open_manifest, splits
from sslbench.errors import SslbenchError
from sslbench.probe.files import AudioFile, Missing, counted, file_cuts, label, lot

DEV_SHARE, TEST_SHARE = 0.15, 0.15
LISTS = ["veri_test_class.txt", "iden_split.txt"]
OFFICIAL_FILES = 138_361 + 6_904 + 8_251


def pooled_cuts(folder: Path, wanted: list[str]) -> list[Cut]:
    """The cuts of all wanted splits that the corpus has, or of its only training split, each id once.

    Raises:
        SslbenchError: the folder has none of them.
    """
    known = splits(folder)
    names = [name for name in wanted if name in known] or [n for n in known if n.startswith("train")][:1]
    if not names:
        raise SslbenchError(
            f"{folder}: has none of the splits {', '.join(wanted)} and no training split "
            f"(its splits: {', '.join(known) or 'none'})"
        )
    cuts = {cut.id: cut for name in names for cut in open_manifest(folder / f"{name}.jsonl.gz")}
    return list(cuts.values())


def official_parts(root: Path) -> dict[str, list[Cut]]:
    """The clips of VoxCeleb1 by its identification list (`veri_test_class.txt` or `iden_split.txt`).

    Raises:
        SslbenchError: naming what is missing.
    """
    missing = Missing(
        "sid: VoxCeleb1",
        root,
        f"{voxceleb.LAYOUT}, and put iden_split.txt (or veri_test_class.txt) beside them",
    )
    for folder in ("dev/wav", "test/wav"):
        missing.need(root / folder)
    listed = missing.need(voxceleb.first_file(root, LISTS))
    missing.check()
    parts: dict[str, list[AudioFile]] = {"train": [], "dev": [], "test": []}
    numbers = {"1": "train", "2": "dev", "3": "test"}
    for number, name in voxceleb.read_pairs(listed, 2):
        path = voxceleb.find_clip(root, name)
        if path is None or number not in numbers:
            missing.need(root / "dev" / "wav" / name)
            continue
        parts[numbers[number]].append(AudioFile(path, voxceleb.clip_id(name), name.split("/")[0]))
    missing.check()
    corpus = counted("voxceleb1", sum(map(len, parts.values())), OFFICIAL_FILES)
    return {part: list(file_cuts(files, corpus)) for part, files in parts.items()}


def session_of(cut: Cut) -> Any:
    """The recording session, or None."""
    return label(cut, "session")


def split_speakers(cuts: list[Cut]) -> dict[str, list[Cut]]:
    """Train, dev and test with the same speakers.

    Test sessions are never trained on (VoxCeleb1's rule, so that the channel cannot tell the speaker): with
    four sessions or more the last is test and the one before it dev; with two or three, a third of the last
    is dev and the rest test, by a hash of their ids. Without sessions all clips go by the hash, so
    that a corpus that grows keeps its split. Speakers who would miss a part are left out.

    Raises:
        SslbenchError: fewer than two speakers remain.
    """
    speakers: dict[str, list[Cut]] = defaultdict(list)
    for cut in cuts:
        speaker = cut.supervisions[0].speaker if cut.supervisions else None
        if speaker is None:
            raise SslbenchError(f"{cut.id}: names no speaker; speaker identification needs one")
        speakers[str(speaker)].append(cut)
    parts: dict[str, list[Cut]] = {"train": [], "dev": [], "test": []}
    kept = 0
    for _, own in sorted(speakers.items()):
        placed = _by_session(own) or _by_hash(own)
        if all(placed.values()):
            kept += 1
            for part, some in placed.items():
                parts[part] += some
    if kept < 2:
        raise SslbenchError(
            f"{kept} of {len(speakers)} speakers have enough recordings for train, dev and "
            "test; two are needed"
        )
    return parts


def _by_session(cuts: list[Cut]) -> dict[str, list[Cut]] | None:
    sessions = sorted({session_of(cut) for cut in cuts if session_of(cut) is not None})
    if len(sessions) < 2 or any(session_of(cut) is None for cut in cuts):
        return None
    last = [cut for cut in cuts if session_of(cut) == sessions[-1]]
    if len(sessions) > 3:
        dev, test = [cut for cut in cuts if session_of(cut) == sessions[-2]], last
    else:
        drawn = sorted(last, key=_draw)
        third = -(-len(drawn) // 3)
        dev, test = drawn[:third], drawn[third:]
    taken = {cut.id for cut in dev + test}
    return {"train": [cut for cut in cuts if cut.id not in taken], "dev": dev, "test": test}


def _by_hash(cuts: list[Cut]) -> dict[str, list[Cut]]:
    parts: dict[str, list[Cut]] = {"train": [], "dev": [], "test": []}
    for cut in cuts:
        draw = _draw(cut)
        part = "dev" if draw < DEV_SHARE else "test" if draw < DEV_SHARE + TEST_SHARE else "train"
        parts[part].append(cut)
    return parts


def _draw(cut: Cut) -> float:
    """A number in [0, 1) that only the id decides."""
    return int.from_bytes(lot(str(cut.id))[:4], "big") / 2**32
