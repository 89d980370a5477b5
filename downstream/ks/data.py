"""Keyword spotting's clips: Speech Commands v0.01 in its official layout."""

from __future__ import annotations

import hashlib
import math
import random
import re
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from sslbench.errors import SslbenchError
from sslbench.probe.files import AudioFile, Missing, counted, file_cuts

KEYWORDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
UNKNOWN, SILENCE = "_unknown_", "_silence_"
CLASSES = [*KEYWORDS, UNKNOWN, SILENCE]
NOISE_FOLDER = "_background_noise_"
OFFICIAL_FILES = 64_727 + 3_081  # training archive with its noises, and test archive
# the training archive's rule for speakers: percentages of a hash (its README and s3prl's split_dataset)
HASH_RANGE = 2**27 - 1
HELD_OUT_BELOW = 50.0


def hash_percent(file_name: str) -> float:
    """Where the archive's rule puts a clip's speaker, in [0, 100]."""
    who = re.sub(r"_nohash_.*$", "", file_name)
    digest = int(hashlib.sha1(who.encode(), usedforsecurity=False).hexdigest(), 16)
    return digest % (HASH_RANGE + 1) * (100.0 / HASH_RANGE)


def hashed_part(file_name: str) -> str:
    """The part of a clip by its speaker's hash: "dev" below 10 %, "" (unused) below 20 %, else "train"."""
    percent = hash_percent(file_name)
    return "dev" if percent < 10 else "" if percent < 20 else "train"


def official_parts(
    root: Path, settings: dict[str, Any], seed: int, held_out: bool = False
) -> dict[str, list[Cut]]:
    """The clips of Speech Commands v0.01.

    Args:
        root: holds the folders of the two archives.
        settings: `train_folder`, `test_folder`, `silence_crops`.
        seed: of the places of silence.
        held_out: test on speakers of the training archive, see `held_out_clips`.

    Raises:
        SslbenchError: naming every missing folder.
    """
    train, test = root / settings["train_folder"], root / settings["test_folder"]
    missing = _missing(root, train, None if held_out else test)
    clips = sorted(p for p in train.glob("*/*.wav") if p.parent.name != NOISE_FOLDER)
    noises, tests = sorted(train.glob(f"{NOISE_FOLDER}/*.wav")), sorted(test.glob("*/*.wav"))
    corpus = counted("speech_commands_v0.01", len(clips) + len(noises) + len(tests), OFFICIAL_FILES)
    spoken: dict[str, list[Path]] = {"train": [], "dev": [], "": []}
    for path in clips:
        spoken[hashed_part(path.name)].append(path)
    if held_out:
        tests = held_out_clips(spoken)
    parts = {part: [_clip(path, "train") for path in spoken[part]] for part in ("train", "dev")}
    crops = int(settings["silence_crops"])
    for part in parts:
        parts[part] += _silences(noises, part, [crops] * len(noises), seed)
    parts["test"] = [_clip(path, "train" if held_out else "test") for path in tests]
    if held_out:
        parts["test"] += _silences(noises, "test", _shared(_mean_count(tests), len(noises)), seed)
    for part, files in parts.items():
        if not files:
            raise SslbenchError(f"{missing.what} under {root}: no clip for {part}; {missing.hint}")
    return {part: list(file_cuts(files, corpus)) for part, files in parts.items()}


def _missing(root: Path, train: Path, test: Path | None) -> Missing:
    missing = Missing(
        "ks: Speech Commands v0.01", root,
        "unpack speech_commands_v0.01.tar.gz and speech_commands_test_set_v0.01.tar.gz there, "
        "each into a folder of its name",
    )  # fmt: skip
    wanted = {train: [*KEYWORDS, NOISE_FOLDER]} | ({} if test is None else {test: CLASSES})
    for folder in [folder for folder in wanted if missing.need(folder).is_dir()]:
        for word in wanted[folder]:
            missing.need(folder / word)
    missing.check()
    return missing


def held_out_clips(spoken: dict[str, list[Path]]) -> list[Path]:
    """Clips of the training archive for a test without the test archive, composed as that is.

    They are those of the archive's own test range of speakers, which the protocol does not use; where none
    is there, those from 20 to 50 %, which leave training. Of other words as many are kept as there are of
    one keyword on average.

    Args:
        spoken: clips by `hashed_part`; its "train" is changed.
    """
    if not spoken[""]:
        spoken[""] = [path for path in spoken["train"] if hash_percent(path.name) < HELD_OUT_BELOW]
        spoken["train"] = [path for path in spoken["train"] if hash_percent(path.name) >= HELD_OUT_BELOW]
    keywords = [path for path in spoken[""] if path.parent.name in KEYWORDS]
    others = [path for path in spoken[""] if path.parent.name not in KEYWORDS]
    random.Random("other words").shuffle(others)
    return keywords + sorted(others[: _mean_count(keywords)])


def _mean_count(clips: list[Path]) -> int:
    return math.ceil(sum(path.parent.name in KEYWORDS for path in clips) / len(KEYWORDS))


def _shared(total: int, among: int) -> list[int]:
    return [total // among + (number < total % among) for number in range(among)]


def _clip(path: Path, archive: str) -> AudioFile:
    word = path.parent.name
    keyword = word if word in CLASSES else UNKNOWN
    who = re.sub(r"_nohash_.*$", "", path.stem)
    return AudioFile(path, f"{archive}-{word}-{path.stem}", who, {"keyword": keyword})


def _silences(noises: list[Path], part: str, crops: list[int], seed: int) -> list[AudioFile]:
    """`crops` seconds of each noise, at places drawn from the seed; s3prl draws one anew each time. Raises
    `SslbenchError` for a noise that cannot be read: it is many clips."""
    import soundfile

    made = []
    for path, count in zip(noises, crops, strict=True):
        try:
            info = soundfile.info(str(path))
        except (soundfile.LibsndfileError, OSError) as error:
            raise SslbenchError(
                f"{path}: cannot be read as audio ({error}); unpack speech_commands_v0.01.tar.gz again"
            ) from None
        longest = max(0.0, info.frames / info.samplerate - 1.0)
        draw = random.Random(f"silence {seed} {part} {path.name}")
        for number in range(count):
            start = round(draw.uniform(0.0, longest), 3)
            name = f"{part}-silence-{path.stem}-{number}"
            made.append(AudioFile(path, name, path.stem, {"keyword": SILENCE}, start, 1.0))
    return made
