"""Tiny corpora in the official layouts of the utterance tasks: tones that say their label."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import soundfile

from sslbench.downstream.ks.data import CLASSES, NOISE_FOLDER, hashed_part

EMOTIONS = ("neu", "hap", "ang", "exc", "sad")


def tone(path: Path, hz: float, seconds: float = 0.3) -> None:
    """A tone with a little noise, 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(seconds * 16_000)) / 16_000
    noise = np.random.default_rng(int(hz * 7 + seconds * 1000) % 2**32).normal(0, 0.01, len(times))
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * times) + noise, 16_000, subtype="PCM_16")


def speech_commands(root: Path, seconds: float = 0.3) -> Path:
    """Twelve words (two of them unknown ones) in both archives' folders."""
    train, test = root / "speech_commands_v0.01", root / "speech_commands_test_set_v0.01"
    for number, word in enumerate([*CLASSES[:10], "bed", "cat"]):
        wanted = iter(["train"] * 6 + ["dev"] * 2)
        part = next(wanted)
        for i in range(10_000):
            name = f"{hashlib.sha256(f'{word}{i}'.encode()).hexdigest()[:8]}_nohash_0.wav"
            if hashed_part(name) == part:
                tone(train / word / name, 300 + 250 * number, seconds)
                following = next(wanted, None)
                if following is None:
                    break
                part = following
    for name in ("a.wav", "b.wav"):
        tone(train / NOISE_FOLDER / name, 7000, 3.0)
    for number, word in enumerate(CLASSES):
        for i in range(3):
            tone(
                test / word / f"x{i}_nohash_0.wav",
                7000 if word == "_silence_" else 300 + 250 * number,
                seconds,
            )
    return root


def fluent_commands(root: Path) -> Path:
    """Three intents, two speakers."""
    intents = [("on", "lamp", "none"), ("off", "lamp", "hall"), ("on", "music", "hall")]
    (root / "data").mkdir(parents=True)
    for split, count in (("train", 6), ("valid", 2), ("test", 2)):
        with (root / "data" / f"{split}_data.csv").open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["", "path", "speakerId", "transcription", "action", "object", "location"])
            for k, intent in enumerate(intents):
                for i in range(count):
                    path = f"wavs/speakers/s{i % 2}/{split}{k}{i}.wav"
                    tone(root / path, 500 + 900 * k)
                    table.writerow([i, path, f"s{i % 2}", "x", *intent])
    return root


def iemocap(root: Path) -> Path:
    """Five sessions of two speakers; "fru" and unlisted clips are left out by the task."""
    for session in range(1, 6):
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for who in "FM":
            for k, emotion in enumerate([*EMOTIONS, "fru"]):
                name = f"Ses0{session}{who}_impro01_{who}00{k}"
                hz = 500 + 900 * {"exc": 1, "sad": 3}.get(emotion, k)
                tone(root / f"Session{session}/sentences/wav/Ses0{session}{who}_impro01/{name}.wav", hz)
                lines.append(f"[1.0 - 2.0]\t{name}\t{emotion}\t[2.5, 2.5, 2.5]")
        lines.append("[1.0 - 2.0]\tSes_not_there\tneu\t[2.5, 2.5, 2.5]")
        folder = root / f"Session{session}/dialog/EmoEvaluation"
        folder.mkdir(parents=True)
        (folder / f"Ses0{session}F_impro01.txt").write_text("\n".join(lines) + "\n")
    return root


def voxceleb(root: Path, speakers: int = 4, seconds: float = 2.2) -> Path:
    """Speakers with four videos of two clips each; the last two speakers are the test half."""
    lists, trials = [], []
    for who in range(speakers + 2):
        half = "dev" if who < speakers else "test"
        for video in range(4):
            for clip in range(2):
                name = f"id{10001 + who}/vid{video}/{clip:05d}.wav"
                tone(root / half / "wav" / name, 400 + 500 * who, seconds)
                lists.append(f"{[1, 1, 2, 3][video]} {name}")
    for who in (speakers, speakers + 1):
        other = 2 * speakers + 1 - who
        for video in range(1, 4):
            first = f"id{10001 + who}/vid0/00000.wav"
            trials += [f"1 {first} id{10001 + who}/vid{video}/00000.wav"]
            trials += [f"0 {first} id{10001 + other}/vid{video}/00001.wav"]
    (root / "iden_split.txt").write_text("\n".join(lists) + "\n")
    (root / "veri_test2.txt").write_text("\n".join(trials) + "\n")
    return root
