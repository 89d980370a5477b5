"""Speaker verification's clips and trials: VoxCeleb1 in its official layout, or a corpus with speakers."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from sslbench.corpora import _voxceleb as voxceleb
from sslbench.errors import SslbenchError
from sslbench.probe.files import AudioFile, Missing, counted, file_cuts, label, lot, manifest_parts, speaker
from sslbench.probe.task import Example

# s3prl's list, VoxCeleb1's own, and the "cleaned" one, which leaves out 109 trials and is not SUPERB's
TRIAL_LISTS = ["voxceleb1_test_v2.txt", "veri_test.txt", "veri_test2.txt"]
OFFICIAL_TRIALS = 37_720
OFFICIAL_FILES = 148_642 + 4_715  # all of dev, and of test the clips that s3prl's list names
HINT = "s3prl's downstream/sv_voxceleb1/voxceleb1_test_v2.txt (or VoxCeleb1's veri_test.txt)"
DEV_SPEAKERS, DEV_VIDEOS = 40, 2
MOST_PAIRS = 5000  # of each kind, where trials are drawn
SEED = 0  # of the drawing


@dataclass(frozen=True)
class Trial:
    """Two clips, and whether one speaker said both."""

    enrol: str
    test: str
    same: bool


@dataclass(frozen=True)
class Corpus:
    """Clips of train, dev and test, and the official trials of test (None: drawn)."""

    parts: dict[str, list[Cut]]
    trials: list[Trial] | None


def official(root: Path, whole: bool = False) -> Corpus:
    """VoxCeleb1: all development speakers train, the test half's trials come from the official list.

    There is no official dev set. Two videos of each of 40 training speakers (by a hash) are left out of
    training and give dev trials across videos.

    Args:
        root: holds both halves and a list of trials.
        whole: accept SUPERB's list only.

    Raises:
        SslbenchError: naming what is missing.
    """
    missing = Missing(
        "asv: VoxCeleb1",
        root,
        f"{voxceleb.LAYOUT}, and put {HINT} beside them",
    )
    for half in ("dev", "test"):
        missing.need(root / half / "wav")
    listed = missing.need(voxceleb.first_file(root, TRIAL_LISTS))
    missing.check()
    pairs = voxceleb.read_pairs(listed, 3)
    if whole and len(pairs) != OFFICIAL_TRIALS:
        raise SslbenchError(
            f"asv: {listed}: has {len(pairs)} trials, SUPERB {OFFICIAL_TRIALS}; put {HINT} there"
        )
    trials, files = [], {}
    for word, enrol, test in pairs:
        for name in (enrol, test):
            path = missing.need(root / "test" / "wav" / name)
            files[name] = AudioFile(path, voxceleb.clip_id(name), name.split("/")[0])
        trials.append(Trial(voxceleb.clip_id(enrol), voxceleb.clip_id(test), word == "1"))
    missing.check()
    parts = _development(root / "dev" / "wav")
    parts["test"] = list(files.values())
    corpus = counted("voxceleb1", sum(map(len, parts.values())), OFFICIAL_FILES)
    return Corpus({part: list(file_cuts(some, corpus)) for part, some in parts.items()}, trials)


def _development(folder: Path) -> dict[str, list[AudioFile]]:
    videos: dict[str, dict[str, list[AudioFile]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("*/*/*.wav")):
        who, video = path.parts[-3], path.parts[-2]
        file = AudioFile(path, "-".join([who, video, path.stem]), who, {"session": video})
        videos[who][video].append(file)
    able = [who for who, own in videos.items() if len(own) > DEV_VIDEOS]
    chosen = set(sorted(able, key=lot)[:DEV_SPEAKERS])
    if len(chosen) < 2:
        raise SslbenchError(
            f"asv: {folder}: {len(chosen)} speakers have three videos, two are needed for dev"
        )
    parts: dict[str, list[AudioFile]] = {"train": [], "dev": []}
    for who, own in videos.items():
        held = set(sorted(own, key=lambda v: lot(who + v))[:DEV_VIDEOS]) if who in chosen else set()
        for video, files in own.items():
            parts["dev" if video in held else "train"] += files
    return parts


def labelled(root: Path, settings: dict[str, Any]) -> Corpus:
    """A corpus folder with speakers: other speakers in train, dev and test. Raises `SslbenchError`
    when a part has fewer than two speakers."""
    parts = manifest_parts(root, settings)
    for part, cuts in parts.items():
        named = {speaker(cut) for cut in cuts if cut.supervisions and cut.supervisions[0].speaker is not None}
        if len(named) < 2:
            raise SslbenchError(f"asv: {root}: {part} has {len(named)} speakers, two are needed")
    return Corpus(parts, None)


def drawn_trials(examples: Sequence[Example]) -> list[Trial]:
    """Trials where no list exists: pairs of one speaker (of different sessions, where those are known), at
    most 5000, and as many pairs of two speakers. All pairs of a kind are equally likely, and the same clips
    give the same trials everywhere."""
    clips = sorted(examples, key=lambda e: (e.speaker, *_session(e), e.id))
    speakers = _ends([e.speaker for e in clips])
    sessions = _ends([(e.speaker, *_session(e)) for e in clips])
    # a clip's partners come after it: those of its speaker after its session, others' after its speaker
    same = _drawn_pairs(sessions, speakers, MOST_PAIRS)
    other = _drawn_pairs(speakers, [len(clips)] * len(clips), len(same))
    return [
        Trial(clips[a].id, clips[b].id, one_speaker)
        for one_speaker, pairs in ((True, same), (False, other))
        for a, b in pairs
    ]


def _session(example: Example) -> tuple[str, str]:
    """The session of a clip; one without a session is its own."""
    session = label(example.cut, "session")
    return ("", str(session)) if session is not None else (example.id, "")


def _ends(keys: Sequence[Hashable]) -> list[int]:
    """For each place in an ordered list, where the stretch of its key ends."""
    ends = {key: place + 1 for place, key in enumerate(keys)}
    return [ends[key] for key in keys]


def _drawn_pairs(starts: Sequence[int], ends: Sequence[int], most: int) -> list[tuple[int, int]]:
    """At most `most` pairs (a, b) with starts[a] <= b < ends[a], all equally likely; drawn by their numbers,
    since a large corpus has too many to make each."""
    before = list(accumulate((end - start for start, end in zip(starts, ends, strict=True)), initial=0))
    total = before[-1]
    numbers = sorted(random.Random(SEED).sample(range(total), most)) if total > most else range(total)
    pairs = []
    for number in numbers:
        a = bisect_right(before, number) - 1
        pairs.append((a, starts[a] + number - before[a]))
    return pairs
