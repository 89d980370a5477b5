"""Who speaks in the embedded corpus: presets, splits, and one generated voice per speaker."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from sslbench import io
from sslbench.errors import SslbenchError, did_you_mean

# Raise it whenever the same preset and seed would give other samples or labels.
GENERATOR_VERSION = 2
FIRST_SPEAKER_ID = 1000
SESSIONS = 3


@dataclass(frozen=True)
class Preset:
    """Size of the corpus."""

    speakers: dict[str, int]
    """Number of speakers per split."""
    utterances: int
    """Utterances per speaker."""


PRESETS = {
    "tiny": Preset({"train-clean-100": 6, "dev-clean": 2, "test-clean": 2, "test-other": 2}, 18),
    "mini": Preset({"train-clean-100": 32, "dev-clean": 4, "test-clean": 4, "test-other": 8}, 60),
    "base": Preset({"train-clean-100": 204, "dev-clean": 14, "test-clean": 14, "test-other": 28}, 60),
}
DEFAULT_PRESET = "mini"


@dataclass(frozen=True)
class Speaker:
    """One generated voice and the rooms it is recorded in."""

    number: int
    split: str
    gender: str
    """`M` or `F`."""
    variant: str
    """Content of an eSpeak voice variant file."""
    rate_wpm: float
    tilt: float
    """Coefficient of a two-tap filter: positive is darker."""
    noisy: bool
    """Recorded in noise and reverberation."""
    utterances: int
    seed: int

    @property
    def id(self) -> str:
        """The speaker's id, numeric as in LibriSpeech."""
        return str(FIRST_SPEAKER_ID + self.number)

    @property
    def key(self) -> str:
        """Checksum of everything that decides this speaker's recordings."""
        return io.sha256_json([GENERATOR_VERSION, asdict(self)])


def preset(name: str | None) -> Preset:
    """A preset by name. Raises `SslbenchError` for an unknown one."""
    name = name or DEFAULT_PRESET
    if name not in PRESETS:
        raise SslbenchError(f"mini: no preset {name!r}; {did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def speakers(size: Preset, seed: int) -> list[Speaker]:
    """The speakers of a preset.

    In `test-other` the first half are ordinary voices in noise and reverberation, the rest are voices
    from a second range (higher or lower, faster or slower) in clean rooms.
    """
    cast: list[Speaker] = []
    for split, count in size.speakers.items():
        for index in range(count):
            other = split == "test-other"
            noisy = other and index < count // 2
            cast.append(_speaker(len(cast), split, size.utterances, seed, noisy, other and not noisy))
    return cast


def _speaker(number: int, split: str, utterances: int, seed: int, noisy: bool, unusual: bool) -> Speaker:
    draw = random.Random(f"speaker {seed} {number}")
    female = number % 2 == 1
    pitch_hz = draw.uniform(165, 235) if female else draw.uniform(75, 135)
    scale = draw.uniform(1.06, 1.20) if female else draw.uniform(0.90, 1.03)
    rate_wpm = draw.uniform(140, 190)
    if unusual:
        pitch_hz *= 1.25 if female else 0.88
        scale *= 1.06 if female else 0.95
        rate_wpm = draw.choice((draw.uniform(115, 130), draw.uniform(200, 225)))
    return Speaker(
        number=number,
        split=split,
        gender="F" if female else "M",
        variant=_variant(draw, female, pitch_hz, scale),
        rate_wpm=rate_wpm,
        tilt=draw.uniform(-0.25, 0.25),
        noisy=noisy,
        utterances=utterances,
        seed=seed,
    )


def _variant(draw: random.Random, female: bool, pitch_hz: float, scale: float) -> str:
    """A voice variant in eSpeak's format (docs/voices.md there): formants, pitch, source and tone."""
    lines = [
        "language variant",
        "name speaker",
        f"gender {'female' if female else 'male'}",
        f"pitch {pitch_hz:.0f} {pitch_hz * draw.uniform(1.25, 1.5):.0f}",
        f"flutter {draw.randrange(0, 12)}",
        f"roughness {draw.randrange(0, 4)}",
        f"voicing {draw.randrange(85, 125)}",
        f"consonants {draw.randrange(80, 120)} {draw.randrange(80, 120)}",
        f"formant 0 100 {draw.randrange(75, 110)} 100",
    ]
    for formant in range(1, 6):
        frequency = round(100 * scale * draw.uniform(0.96, 1.04))
        lines.append(f"formant {formant} {frequency} {draw.randrange(75, 115)} {draw.randrange(85, 140)}")
    bands = ((600, 150, 255), (1200, 100, 200), (2000, 60, 150), (3000, 30, 120))
    lines.append("tone " + " ".join(f"{hz} {draw.randrange(low, high)}" for hz, low, high in bands))
    if draw.random() < 0.3:
        lines.append("breath " + " ".join(str(draw.randrange(1, 5)) for _ in range(8)))
    return "\n".join(lines) + "\n"


def prosody(speaker: Speaker, emotion: str) -> dict[str, Any]:
    """How a speaker says an utterance: the worker's `pitch`, `range` and `rate_wpm`."""
    pitch, range_, rate, _ = _EMOTIONS[emotion]
    return {"pitch": 50 + pitch, "range": 50 + range_, "rate_wpm": max(90, int(speaker.rate_wpm * rate))}


def gain_db(emotion: str) -> float:
    """Level of an emotion relative to neutral speech."""
    return _EMOTIONS[emotion][3]


# pitch and range (eSpeak's 0–100), rate factor, level in dB
_EMOTIONS: dict[str, tuple[int, int, float, float]] = {
    "neutral": (0, 0, 1.0, 0.0),
    "happy": (16, 30, 1.08, 1.0),
    "angry": (6, 25, 1.16, 5.0),
    "sad": (-14, -32, 0.80, -5.0),
}
