"""A prepared corpus with labels, written in the official layouts that s3prl's downstream code reads."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
from lhotse.cut import Cut

from sslbench.data.loading import read_cut
from sslbench.downstream.ks.data import CLASSES, hashed_part
from sslbench.probe.files import label, manifest_parts, speaker

SPLITS = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}
LONGEST_S = 3.0
SPEAKERS = 12  # of SID


def write_layouts(manifests: Path, audio: Path, out: Path) -> dict[str, Path]:
    """Write KS, IC, ER, SID and PR data from the embedded corpus.

    Args:
        manifests: of the corpus.
        audio: holds its `LibriSpeech` folder and `lexicon.txt`.
        out: written to.

    Returns:
        The root of each task.
    """
    parts = {
        part: [cut for cut in cuts if cut.duration <= LONGEST_S]
        for part, cuts in manifest_parts(manifests, SPLITS).items()
    }
    writers = {"ks": _keywords, "ic": _intents, "er": _emotions, "sid": _speakers}
    for name, write in writers.items():
        if not (out / name / "done").is_file():
            write(parts, out / name)
            (out / name / "done").touch()
    _phones(audio, out / "pr")
    return {name: out / name for name in (*writers, "pr")}


def _write(cut: Cut, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, read_cut(cut).numpy(), 16_000, subtype="PCM_16")


def _keywords(parts: dict[str, list[Cut]], out: Path) -> None:
    for part, cuts in parts.items():
        folder = "speech_commands_test_set_v0.01" if part == "test" else "speech_commands_v0.01"
        for number, cut in enumerate(cut for cut in cuts if label(cut, "keyword")):
            word = str(label(cut, "keyword"))
            if part != "test" and word == "_unknown_":
                word = str(cut.supervisions[0].text).lower()
            # the archive's hash decides the part, so a name is sought that falls into the wanted one
            names = (
                f"{hashlib.sha256(f'{cut.id}{i}'.encode()).hexdigest()[:8]}_nohash_{number}.wav"
                for i in range(999)
            )
            name = next(n for n in names if part == "test" or hashed_part(n) == part)
            _write(cut, out / folder / word / name)
    noise = np.random.default_rng(0).normal(0, 0.01, 16_000 * 20)
    for folder, word, length in (
        ("speech_commands_v0.01", "_background_noise_", 16_000 * 20),
        ("speech_commands_test_set_v0.01", "_silence_", 16_000),
    ):
        (out / folder / word).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            soundfile.write(
                out / folder / word / f"noise{number}.wav", np.roll(noise, 999 * number)[:length], 16_000
            )
    for word in CLASSES:
        (out / "speech_commands_test_set_v0.01" / word).mkdir(exist_ok=True)


def _intents(parts: dict[str, list[Cut]], out: Path) -> None:
    files = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}
    (out / "data").mkdir(parents=True, exist_ok=True)
    known: set[tuple[str, str]] = set()
    for part, name in files.items():
        rows = []
        for cut in (cut for cut in parts[part] if label(cut, "action")):
            values = {slot: str(label(cut, slot)) for slot in ("action", "object", "location")}
            if part == "train":
                known |= set(values.items())
            elif not set(values.items()) <= known:  # s3prl stops at a value that training lacks
                continue
            _write(cut, out / "wavs" / f"{cut.id}.wav")
            rows.append(
                {"path": f"wavs/{cut.id}.wav", "speakerId": speaker(cut), "transcription": "", **values}
            )
        with (out / "data" / name).open("w", newline="") as stream:
            table = csv.DictWriter(
                stream, ["path", "speakerId", "transcription", "action", "object", "location"]
            )
            table.writeheader()
            table.writerows(rows)


def _emotions(parts: dict[str, list[Cut]], out: Path) -> None:
    names = {"neutral": "neu", "happy": "hap", "angry": "ang", "sad": "sad"}
    cuts = [cut for some in parts.values() for cut in some if label(cut, "kind") == "sentence"]
    who = sorted({speaker(cut) for cut in cuts})
    sessions: dict[str, list[dict[str, str]]] = defaultdict(list)
    for cut in cuts:
        session = f"Session{who.index(speaker(cut)) % 5 + 1}"
        name = f"Ses{session[-1]}{speaker(cut)}_{cut.id}"
        path = f"{session}/sentences/wav/{speaker(cut)}/{name}.wav"
        _write(cut, out / path)
        sessions[session].append(
            {"path": path, "label": names[str(label(cut, "emotion"))], "speaker": speaker(cut)}
        )
    for session, own in sessions.items():
        folder = out / session / "dialog" / "EmoEvaluation"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"[0 - 1]\t{Path(row['path']).stem}\t{row['label']}\t[0, 0, 0]" for row in own]
        (folder / "all.txt").write_text("\n".join(lines) + "\n")
        others = [row for other, rows in sessions.items() if other != session for row in rows]
        for part, rows in (("train", others), ("test", own)):
            target = out / "meta_data" / session / f"{part}_meta_data.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            labels = {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
            target.write_text(json.dumps({"labels": labels, "meta_data": rows}))


def _speakers(parts: dict[str, list[Cut]], out: Path) -> None:
    who = sorted({speaker(cut) for cut in parts["train"]})[:SPEAKERS]
    lines = []
    for cut in (cut for cut in parts["train"] if speaker(cut) in who):
        draw = random.Random(str(cut.id)).random()
        name = f"id{10001 + who.index(speaker(cut))}/{cut.id}/00001.wav"
        _write(cut, out / "dev" / "wav" / name)
        lines.append(f"{3 if draw < 0.15 else 2 if draw < 0.25 else 1} {name}")
    (out / "test" / "wav").mkdir(parents=True, exist_ok=True)
    (out / "veri_test_class.txt").write_text("\n".join(lines) + "\n")


def _phones(audio: Path, out: Path) -> None:
    """The first speakers of each split by links, and a lexicon in s3prl's vocabulary file's words."""
    for split, count in (("train-clean-100", 8), ("dev-clean", 2), ("test-clean", 2)):
        for who in sorted((audio / "LibriSpeech" / split).iterdir())[:count]:
            target = out / split / who.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                for path in sorted(who.rglob("*")):  # s3prl's search does not follow linked folders
                    if path.is_file():
                        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
                        os.link(path, target / path.parent.name / path.name)
    lexicon = (audio / "lexicon.txt").read_text()
    (out / "lexicon.txt").write_text(lexicon)
    phones = sorted({phone for line in lexicon.splitlines() for phone in line.split()[1:]})
    (out / "phones.txt").write_text("\n".join(phones) + "\n")
