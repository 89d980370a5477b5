"""Keyword spotting's clips: Speech Commands v0.01 in its official layout, or a corpus with keyword labels."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from sslbench.errors import SslbenchError
from sslbench.probe.files import AudioFile, Missing, counted, file_cuts, label, manifest_parts

KEYWORDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
UNKNOWN, SILENCE = "_unknown_", "_silence_"
CLASSES = [*KEYWORDS, UNKNOWN, SILENCE]
NOISE_FOLDER = "_background_noise_"
OFFICIAL_FILES = 64_727 + 3_081  # training archive with its noises, and test archive
# the training archive's rule for speakers: percentages of a hash (its README and s3prl's split_dataset)
HASH_RANGE = 2**27 - 1


def hashed_part(file_name: str) -> str:
    """The part of a clip by its speaker's hash: "dev" below 10 %, "" (unused) below 20 %, else "train"."""
    who = re.sub(r"_nohash_.*$", "", file_name)
    digest = int(hashlib.sha1(who.encode(), usedforsecurity=False).hexdigest(), 16)
    percent = digest % (HASH_RANGE + 1) * (100.0 / HASH_RANGE)
    return "dev" if percent < 10 else "" if percent < 20 else "train"


def official_parts(root: Path, settings: dict[str, Any], seed: int) -> dict[str, list[Cut]]:
    """The clips of Speech Commands v0.01.

    Args:
        root: holds the folders of the two archives.
        settings: `train_folder`, `test_folder`, `silence_crops`.
        seed: of the places of silence.

    Raises:
        SslbenchError: naming every missing folder.
    """
    missing = Missing(
        "ks: Speech Commands v0.01", root,
        "unpack speech_commands_v0.01.tar.gz and speech_commands_test_set_v0.01.tar.gz there, "
        "each into a folder of its name",
    )  # fmt: skip
    train, test = missing.need(root / settings["train_folder"]), missing.need(root / settings["test_folder"])
    for folder, words in ((train, [*KEYWORDS, NOISE_FOLDER]), (test, CLASSES)):
        if folder.is_dir():
            for word in words:
                missing.need(folder / word)
    missing.check()
    clips = sorted(p for p in train.glob("*/*.wav") if p.parent.name != NOISE_FOLDER)
    noises, tests = sorted(train.glob(f"{NOISE_FOLDER}/*.wav")), sorted(test.glob("*/*.wav"))
    corpus = counted("speech_commands_v0.01", len(clips) + len(noises) + len(tests), OFFICIAL_FILES)
    parts: dict[str, list[AudioFile]] = {"train": [], "dev": [], "test": []}
    for path in clips:
        part = hashed_part(path.name)
        if part:
            parts[part].append(_clip(path, "train"))
    for part in ("train", "dev"):
        parts[part] += _silences(noises, part, int(settings["silence_crops"]), seed)
    parts["test"] = [_clip(path, "test") for path in tests]
    for part, files in parts.items():
        if not files:
            raise SslbenchError(f"{missing.what} under {root}: no clip for {part}; {missing.hint}")
    return {part: list(file_cuts(files, corpus)) for part, files in parts.items()}


def _clip(path: Path, archive: str) -> AudioFile:
    word = path.parent.name
    keyword = word if word in CLASSES else UNKNOWN
    who = re.sub(r"_nohash_.*$", "", path.stem)
    return AudioFile(path, f"{archive}-{word}-{path.stem}", who, {"keyword": keyword})


def _silences(noises: list[Path], part: str, crops: int, seed: int) -> list[AudioFile]:
    """`crops` seconds of each noise, at places drawn from the seed; s3prl draws one anew each time."""
    import soundfile

    made = []
    for path in noises:
        info = soundfile.info(str(path))
        longest = max(0.0, info.frames / info.samplerate - 1.0)
        draw = random.Random(f"silence {seed} {part} {path.name}")
        for number in range(crops):
            start = round(draw.uniform(0.0, longest), 3)
            name = f"{part}-silence-{path.stem}-{number}"
            made.append(AudioFile(path, name, path.stem, {"keyword": SILENCE}, start, 1.0))
    return made


def labelled_parts(root: Path, settings: dict[str, Any]) -> dict[str, list[Cut]]:
    """The single-word clips of a corpus folder whose cuts are marked `keyword`.

    Raises:
        SslbenchError: a part has none.
    """
    parts = {
        part: [cut for cut in cuts if label(cut, "keyword")]
        for part, cuts in manifest_parts(root, settings).items()
    }
    for part, cuts in parts.items():
        if not cuts:
            raise SslbenchError(
                f"ks: {root}: no cut of {part} has a 'keyword' label; give the root of Speech Commands, "
                "or a corpus with such labels"
            )
    return parts
