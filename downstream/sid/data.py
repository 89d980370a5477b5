"""Speaker identification's own split: the same speakers in train, dev and test, other recordings."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from sslbench.data.manifests import open_manifest, splits
from sslbench.errors import SslbenchError

DEV_SHARE, TEST_SHARE = 0.15, 0.15


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


def session_of(cut: Cut) -> Any:
    """The recording session, or None."""
    own = (cut.custom or {}).get("session")
    return own if own is not None else (cut.supervisions[0].custom or {}).get("session")


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
    return int(hashlib.sha256(str(cut.id).encode()).hexdigest()[:8], 16) / 0x1_0000_0000
