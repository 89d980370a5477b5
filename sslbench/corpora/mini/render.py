"""One speaker of the embedded corpus on disk: synthesize, record in three sessions, write FLAC and truth.

Everything here is a function of the speaker alone, so the samples do not depend on what else runs.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sslbench import io
from sslbench.corpora.mini.grammar import Utterance, utterances
from sslbench.corpora.mini.phones import align
from sslbench.corpora.mini.speakers import SESSIONS, Speaker, gain_db, prosody
from sslbench.errors import SslbenchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wave = NDArray[np.float64]

SAMPLE_RATE_HZ = 16_000
LEVEL_DBFS = -26.0
WORKER = Path(__file__).with_name("worker.py")
TRUTH_FOLDER = "truth"
PLAIN_VARIANT = "language variant\nname speaker\ngender male\n"


def require_engine() -> None:
    """Check that the synthesizer is installed, without loading it. Raises `SslbenchError` when it is not."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise SslbenchError(
            "mini: the speech synthesizer (espeakng-loader) is not installed; pip install 'sslbench[mini]'"
        )


@dataclass(frozen=True)
class Spoken:
    """The synthesizer's answer to one list of utterances."""

    engine: str
    sample_rate_hz: int
    waves: list[NDArray[np.int16]]
    phones: list[list[tuple[str, int, int]]]
    """Per utterance `(phone, first sample, end sample)` that tile the wave."""


def speak(variant: str, requests: Sequence[dict[str, Any]], seed: int) -> Spoken:
    """Run the synthesizer in a fresh process of its own.

    Raises:
        SslbenchError: when the process fails; the message ends with what it said last.
    """
    require_engine()
    request = json.dumps({"seed": seed, "variant": variant, "utterances": list(requests)})
    done = subprocess.run(
        [sys.executable, str(WORKER)],
        input=request.encode(),
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise SslbenchError(
            f"mini: the synthesizer process failed (status {done.returncode}: {last}); "
            "reinstall it: pip install --force-reinstall 'sslbench[mini]'"
        )
    head, _, body = done.stdout.partition(b"\n")
    header = json.loads(head)
    waves, phones, at = [], [], 0
    for answer in header["utterances"]:
        wave = np.frombuffer(body, dtype="<i2", count=answer["samples"], offset=2 * at)
        at += answer["samples"]
        waves.append(wave)
        phones.append(align([(sample, name) for sample, name in answer["phones"]], len(wave)))
    return Spoken(header["engine"], header["sample_rate_hz"], waves, phones)


def speaker_rows(speaker: Speaker, root: Path) -> list[dict[str, Any]]:
    """The truth of one speaker's recordings, made now or found complete from before.

    Args:
        speaker: who speaks.
        root: the corpus folder; audio goes to `root/LibriSpeech/<split>/<speaker>/<chapter>/`.

    Returns:
        One dict per utterance: id, path (relative to root), text, labels, phones, samples, pcm_sha256.
    """
    truth_path = root / TRUTH_FOLDER / f"{speaker.id}.json"
    if truth_path.is_file():
        truth = io.read_json(truth_path)
        if truth["key"] == speaker.key and _is_whole(root, truth["rows"]):
            found: list[dict[str, Any]] = truth["rows"]
            return found
    said = utterances(speaker.number, speaker.split, speaker.utterances, speaker.seed)
    requests = [{"text": u.text, **prosody(speaker, u.emotion)} for u in said]
    spoken = speak(speaker.variant, requests, seed=1000 * speaker.seed + speaker.number + 1)
    rows = _record(speaker, said, spoken, root)
    # the truth comes last: its presence says that every file before it is whole
    io.write_json(truth_path, {"key": speaker.key, "engine": spoken.engine, "rows": rows})
    return rows


def _is_whole(root: Path, rows: list[dict[str, Any]]) -> bool:
    """Whether every file is there with the size it was written with (no decoding: this must be cheap)."""
    try:
        return all((root / row["path"]).stat().st_size == row["bytes"] for row in rows)
    except OSError:
        return False


def write_flac(path: Path, pcm: NDArray[np.int16]) -> None:
    """Write 16 kHz samples; the file appears whole, but is not synced (the truth file vouches for it)."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    soundfile.write(str(temporary), pcm, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    temporary.replace(path)


def _record(speaker: Speaker, said: list[Utterance], spoken: Spoken, root: Path) -> list[dict[str, Any]]:
    # RandomState's streams are frozen by numpy; the newer Generator's are not
    noise = np.random.RandomState(np.array([speaker.seed, speaker.number, 77], dtype=np.uint32))
    rooms = [_Room.draw(noise, speaker.noisy) for _ in range(SESSIONS)]
    rows: list[dict[str, Any]] = []
    chapters: dict[Path, list[str]] = {}
    for index, utterance in enumerate(said):
        session = index % SESSIONS
        wave, phones = _at_16k(spoken, index)
        wave, phones = _place(wave, phones, speaker, utterance.emotion, rooms[session], noise)
        pcm = np.round(np.clip(wave, -1, 1) * 32767).astype("<i2")
        chapter = f"{speaker.id}{session}"
        folder = Path("LibriSpeech") / speaker.split / speaker.id / chapter
        name = f"{speaker.id}-{chapter}-{index:04d}"
        path = folder / f"{name}.flac"
        write_flac(root / path, pcm)
        transcript = root / folder / f"{speaker.id}-{chapter}.trans.txt"
        chapters.setdefault(transcript, []).append(f"{name} {utterance.text.upper()}\n")
        labels = {
            "kind": utterance.kind,
            **utterance.labels,
            "emotion": utterance.emotion,
            "session": session,
        }
        rows.append(
            {
                "id": name, "path": str(path), "bytes": (root / path).stat().st_size,
                "split": speaker.split, "speaker": speaker.id, "gender": speaker.gender,
                "text": utterance.text.upper(), "labels": labels, "samples": len(pcm),
                "phones": phones, "pcm_sha256": hashlib.sha256(pcm.tobytes()).hexdigest(),
            }
        )  # fmt: skip
    for transcript, lines in chapters.items():
        io.write_text(transcript, "".join(lines))
    return rows


Phones = list[tuple[str, int, int]]


def _at_16k(spoken: Spoken, index: int) -> tuple[Wave, Phones]:
    """One utterance at 16 kHz without the synthesizer's own leading and closing silence."""
    from scipy.signal import resample_poly

    common = int(np.gcd(SAMPLE_RATE_HZ, spoken.sample_rate_hz))
    up, down = SAMPLE_RATE_HZ // common, spoken.sample_rate_hz // common
    phones = [(p, a * up // down, b * up // down) for p, a, b in spoken.phones[index]]
    while phones and phones[-1][0] == "SIL":
        phones.pop()
    if phones and phones[0][0] == "SIL":
        phones.pop(0)
    if not phones:
        raise SslbenchError(
            f"mini: the synthesizer was silent for utterance {index}; please report this text"
        )
    first, last = phones[0][1], phones[-1][2]
    wave = resample_poly(spoken.waves[index].astype(np.float64) / 32768, up, down)[first:last]
    last = first + len(wave)
    return wave, [(p, a - first, min(b, last) - first) for p, a, b in phones]


def _place(
    wave: Wave, phones: Phones, speaker: Speaker, emotion: str, room: _Room, noise: np.random.RandomState
) -> tuple[Wave, Phones]:
    """Put one utterance into a room: filter, level, silence around it, reverberation, noise."""
    from scipy.signal import lfilter

    wave = lfilter([1.0, speaker.tilt], [1.0], wave)
    level_db = LEVEL_DBFS + gain_db(emotion) + room.gain_db + noise.uniform(-1.5, 1.5)
    wave = wave * 10 ** (level_db / 20) / (np.sqrt(np.mean(wave**2)) + 1e-9)
    lead, tail = (int(SAMPLE_RATE_HZ * noise.uniform(0.08, 0.3)) for _ in range(2))
    wave = room.apply(np.concatenate([np.zeros(lead), wave, np.zeros(tail)]), noise)
    spans = [("SIL", 0, lead), *((p, a + lead, b + lead) for p, a, b in phones)]
    return wave, [*spans, ("SIL", spans[-1][2], len(wave))]


@dataclass(frozen=True)
class _Room:
    """The channel of one session."""

    low_cut: float
    """Pole of a one-pole high pass."""
    brightness: float
    gain_db: float
    noise_dbfs: float
    reverb: Wave | None
    """Impulse response, direct path first, so that alignments stay true."""

    @classmethod
    def draw(cls, noise: np.random.RandomState, noisy: bool) -> _Room:
        low_cut, brightness = noise.uniform(0.93, 0.99), noise.uniform(-0.3, 0.3)
        gain_db, floor = noise.uniform(-3, 3), noise.uniform(-66, -58)
        if not noisy:
            return cls(low_cut, brightness, gain_db, floor, None)
        rt60_s = noise.uniform(0.2, 0.45)
        times = np.arange(int(rt60_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        tail = noise.standard_normal(len(times)) * 10 ** (-3 * times / rt60_s) * 0.05
        tail[: SAMPLE_RATE_HZ // 500] = 0.0  # nothing arrives within 2 ms of the direct path
        tail[0] = 1.0
        return cls(low_cut, brightness, gain_db, noise.uniform(-44, -36), tail)

    def apply(self, wave: Wave, noise: np.random.RandomState) -> Wave:
        from scipy.signal import fftconvolve, lfilter

        wave = lfilter([1.0, -1.0], [1.0, -self.low_cut], wave)
        wave = lfilter([1.0, self.brightness], [1.0], wave)
        if self.reverb is not None:
            wave = fftconvolve(wave, self.reverb)[: len(wave)]
        # noise of a room falls with frequency
        floor = lfilter([1.0], [1.0, -0.7], noise.standard_normal(len(wave)))
        floor *= 10 ** (self.noise_dbfs / 20) / (np.sqrt(np.mean(floor**2)) + 1e-9)
        return np.asarray(wave + floor)


@functools.cache
def lexicon(vocabulary: tuple[str, ...]) -> dict[str, list[str]]:
    """How the synthesizer pronounces each word on its own (one pronunciation per word, no stress)."""
    requests = [{"text": word, "pitch": 50, "range": 50, "rate_wpm": 160} for word in vocabulary]
    spoken = speak(PLAIN_VARIANT, requests, seed=1)
    entries = {
        word: [phone for phone, _, _ in phones if phone != "SIL"]
        for word, phones in zip(vocabulary, spoken.phones, strict=True)
    }
    # alone, an article is read as a letter or stressed; sentences have the weak form
    return {**entries, "a": ["AH"], "the": ["DH", "AH"]}
