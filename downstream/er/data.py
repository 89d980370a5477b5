"""Emotion recognition's clips and folds: IEMOCAP, EmoDB, or a corpus with emotion labels."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import Cut

from sslbench.data.manifests import open_manifest, splits
from sslbench.errors import SslbenchError
from sslbench.io import read_json
from sslbench.probe.files import AudioFile, Missing, counted, file_cuts, label, speaker

FOLDS = 5
DEV_SHARE = 0.2
EMOTIONS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
NAMES = {"neutral": "neu", "happy": "hap", "angry": "ang", "sad": "sad"}
EMODB_LETTERS = {"N": "neu", "F": "hap", "W": "ang", "T": "sad"}
OFFICIAL_FILES = 5531

Folds = dict[str, dict[str, list[Cut]]]


def iemocap_folds(root: Path) -> Folds:
    """IEMOCAP's five folds: one session is test, the others are split 80/20 into train and dev.

    With s3prl's lists in `ROOT/meta_data/SessionN/{train,test}_meta_data.json` the order of clips, and so
    the random split, is s3prl's; without them clips come from `EmoEvaluation`, sorted.

    Raises:
        SslbenchError: naming every missing session folder.
    """
    sessions = [f"Session{n}" for n in range(1, FOLDS + 1)]
    missing = Missing("er: IEMOCAP", root, "give the folder that holds Session1 to Session5, unpacked")
    for session in sessions:
        missing.need(root / session / "dialog" / "EmoEvaluation")
        missing.need(root / session / "sentences" / "wav")
    missing.check()
    own = {session: _evaluated(root, session) for session in sessions}
    order: dict[str, list[AudioFile]] = {}
    for session in sessions:
        listed = root / "meta_data" / session / "train_meta_data.json"
        others = [file for other in sessions if other != session for file in own[other]]
        order[session] = _in_order_of(read_json(listed)["meta_data"], others) if listed.is_file() else others
    files = [file for session in sessions for file in own[session]]
    cuts = {str(cut.id): cut for cut in file_cuts(files, counted("iemocap", len(files), OFFICIAL_FILES))}
    return {
        f"fold{n}": _fold(
            [cuts[f.id] for f in order[session] if f.id in cuts],
            [cuts[f.id] for f in own[session] if f.id in cuts],
        )
        for n, session in enumerate(sessions, 1)
    }


def _evaluated(root: Path, session: str) -> list[AudioFile]:
    """The clips of a session whose agreed emotion is one of the four (excited counts as happy)."""
    wavs = {p.stem: p for p in sorted((root / session / "sentences" / "wav").rglob("*.wav"))}
    found = []
    for path in sorted((root / session / "dialog" / "EmoEvaluation").glob("*.txt")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split("\t")
            if line.startswith("[") and len(words) > 2 and words[2] in EMOTIONS and words[1] in wavs:
                wav = wavs[words[1]]
                found.append(
                    AudioFile(wav, wav.stem, wav.stem.split("_")[0], {"emotion": EMOTIONS[words[2]]})
                )
    if not found:
        raise SslbenchError(
            f"er: {root / session}: no clip with one of the four emotions; unpack IEMOCAP again"
        )
    return found


def _in_order_of(listed: list[dict[str, Any]], files: list[AudioFile]) -> list[AudioFile]:
    by_name = {file.id: file for file in files}
    names = [Path(row["path"]).stem for row in listed]
    lacking = [name for name in names if name not in by_name]
    if lacking or len(names) != len(files):
        raise SslbenchError(
            f"er: meta_data lists {len(names)} clips, the sessions hold {len(files)} (missing: "
            f"{', '.join(lacking[:3]) or 'none'}); remove meta_data, or unpack IEMOCAP again"
        )
    return [by_name[name] for name in names]


def _fold(others: list[Cut], test: list[Cut]) -> dict[str, list[Cut]]:
    """s3prl's split (downstream/emotion/expert.py): `random_split` under seed 0."""
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(0)).tolist()
    train = int((1 - DEV_SHARE) * len(others))
    return {
        "train": [others[i] for i in order[:train]], "dev": [others[i] for i in order[train:]], "test": test
    }  # fmt: skip


def emodb_folds(root: Path) -> Folds | None:
    """EmoDB's four shared emotions from file names (speaker, text, emotion letter); None when it isn't."""
    paths = [p for p in sorted((root / "wav").glob("*.wav")) if re.fullmatch(r"\d\d[ab]\d\d[A-Z]\w?", p.stem)]
    if not paths:
        return None
    files = [
        AudioFile(p, p.stem, p.stem[:2], {"emotion": EMODB_LETTERS[p.stem[5]]})
        for p in paths
        if p.stem[5] in EMODB_LETTERS
    ]
    return speaker_folds(list(file_cuts(files, "emodb")), root)


def labelled_folds(root: Path, kinds: list[str]) -> Folds:
    """Folds of a corpus folder whose cuts are marked `emotion`; only cuts of these kinds, where marked.

    Raises:
        SslbenchError: no such cuts, or fewer than five speakers.
    """
    cuts = {
        str(cut.id): cut
        for name in splits(root)
        for cut in open_manifest(root / f"{name}.jsonl.gz")
        if label(cut, "emotion") and label(cut, "kind") in (None, *kinds)
    }
    return speaker_folds(list(cuts.values()), root)


def speaker_folds(cuts: list[Cut], root: Path) -> Folds:
    """Five folds by speaker, each speaker's clips in one fold's test only.

    Raises:
        SslbenchError: fewer than five speakers.
    """
    groups: dict[str, list[Cut]] = defaultdict(list)
    for cut in cuts:
        groups[speaker(cut)].append(cut)
    if len(groups) < FOLDS:
        raise SslbenchError(
            f"er: {root}: {len(groups)} speakers have clips with an 'emotion' label, five are needed; give "
            "the root of IEMOCAP, or a corpus with such labels"
        )
    names = sorted(groups)
    return {
        f"fold{n + 1}": _fold(
            [cut for i, name in enumerate(names) if i % FOLDS != n for cut in groups[name]],
            [cut for i, name in enumerate(names) if i % FOLDS == n for cut in groups[name]],
        )
        for n in range(FOLDS)
    }


def emotion_of(cut: Cut) -> str:
    """One of neu, hap, ang, sad. Raises `SslbenchError` for another label."""
    found = str(label(cut, "emotion"))
    found = NAMES.get(found, found)
    if found not in NAMES.values():
        raise SslbenchError(f"er: {cut.id}: emotion {found!r} is none of {', '.join(NAMES)}")
    return found
