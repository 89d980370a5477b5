"""What is looked at in one cut."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from lhotse.cut import Cut, MonoCut

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.data.reading import LENGTH_TOLERANCE_SAMPLES, CutReadError, plain_file, read_cut
from sslbench.data.rows import Row
from sslbench.data.units.apply import KEY
from sslbench.data.units.external import length_fits
from sslbench.errors import SslbenchError

ERRORS = {
    "manifest_damaged": "the manifest cannot be read on",
    "duplicate_id": "two cuts of one split have the same id",
    "missing": "the audio is not there",
    "unreadable": "the audio cannot be decoded",
    "truncated": "the audio ends before the manifest says",
    "wrong_rate": "not 16 kHz",
    "empty": "no samples",
    "not_finite": "samples that are NaN or infinite",
    "too_short": "shorter than one 25 ms frame",
    "duration_mismatch": "file and manifest disagree about the length",
    "units_mismatch": "units do not fit the length, 50 per second",
    "units_invalid": "units that are no whole numbers from 0 on",
    "units_missing": "no units, though other cuts of the split have them",
    "audio_in_two_splits": "the same samples in two splits",
}
"""Breaks training, or makes its evaluation void."""
WARNINGS = {
    "clipped": "more than 0.1 % of the samples at full scale",
    "silent": "no sound (below -70 dBFS)",
    "dc_offset": "mean further than 0.02 from zero",
    "channels": "several channels, which are averaged",
    "duplicate_audio": "the same samples twice in one split",
    "speaker_in_two_splits": "a speaker in two splits",
    "empty_transcript": "a transcript without a character",
    "transcript_missing": "no transcript, though other cuts of the split have one",
    "odd_characters": "control characters, symbols, mixed scripts or unusual encodings in a transcript",
}
"""Worth knowing."""

MIN_SAMPLES = SAMPLE_RATE_HZ // 40
CLIPPED_LEVEL, CLIPPED_SHARE = 0.9995, 1e-3
SILENT_RMS = 10 ** (-70 / 20)
MAX_OFFSET = 0.02


@dataclass
class Seen:
    """One cut after its check."""

    id: str
    duration_s: float = 0.0
    findings: list[tuple[str, str]] = field(default_factory=list)
    """(kind, detail)."""
    samples_hash: bytes = b""
    """8 bytes of a checksum of the samples; empty when unreadable."""
    speakers: list[str] = field(default_factory=list)
    has_text: bool = False
    has_units: bool = False


def check_rows(rows: list[Row]) -> list[Seen]:
    """Check some rows; never raises for a bad one."""
    torch.set_num_threads(1)
    return [_check_row(row) for row in rows]


def _check_row(row: Row) -> Seen:
    seen = Seen(row.id, row.duration)
    content = row.as_dict()
    _check_labels(seen, content)
    try:
        cut = row.cut()
        wav = read_cut(cut)
    except CutReadError as error:
        seen.findings.append((error.kind, str(error).removeprefix(f"{row.id}: ")))
        return seen
    except SslbenchError as error:  # a shard without this cut's audio
        seen.findings.append(("missing", str(error)))
        return seen
    except Exception as error:  # whatever lhotse makes of an odd line
        seen.findings.append(("manifest_damaged", f"lhotse cannot build the cut ({error})"))
        return seen
    seen.findings += [*header_findings(cut), *wave_findings(wav)]
    pcm = (wav * 32768).round().clamp(-32768, 32767).short().numpy().tobytes()
    seen.samples_hash = hashlib.blake2b(pcm, digest_size=8).digest()
    return seen


def _check_labels(seen: Seen, content: dict[str, Any]) -> None:
    """Take in what the manifest says about a cut, apart from its audio."""
    supervisions = content.get("supervisions") or []
    seen.speakers = sorted({str(s["speaker"]) for s in supervisions if s.get("speaker")})
    texts = [str(s["text"]) for s in supervisions if s.get("text") is not None]
    seen.has_text = bool(texts)
    seen.findings += text_findings(texts)
    units = (content.get("custom") or {}).get(KEY)
    seen.has_units = units is not None
    if units is not None:
        seen.findings += units_findings(units, round(seen.duration_s * SAMPLE_RATE_HZ))


def header_findings(cut: Cut) -> Iterator[tuple[str, str]]:
    """Whether the file is as long as its recording entry says, and mono."""
    import soundfile

    source = plain_file(cut)
    if source is None or not isinstance(cut, MonoCut) or cut.recording is None:
        return
    with soundfile.SoundFile(source) as file:
        frames, channels = file.frames, file.channels
    promised = cut.recording.num_samples
    if abs(frames - promised) > LENGTH_TOLERANCE_SAMPLES:
        yield "duration_mismatch", f"the file has {frames} samples, the manifest says {promised}"
    if channels > 1:
        yield "channels", f"{channels} channels"


def wave_findings(wav: torch.Tensor) -> Iterator[tuple[str, str]]:
    """What the samples show, of (T,) at 16 kHz."""
    if len(wav) < MIN_SAMPLES:
        yield "too_short", f"{len(wav)} samples"
    clipped = float((wav.abs() >= CLIPPED_LEVEL).float().mean())
    if clipped > CLIPPED_SHARE:
        yield "clipped", f"{clipped:.2%} of the samples"
    rms, mean = float(wav.square().mean().sqrt()), float(wav.mean())
    if rms < SILENT_RMS:
        yield "silent", "digital silence" if rms == 0 else f"rms {rms:.1e}"
    if abs(mean) > MAX_OFFSET:
        yield "dc_offset", f"mean {mean:+.3f}"


def units_findings(units: Any, num_samples: int) -> Iterator[tuple[str, str]]:
    """Whether units are numbers, and as many as the cut has frames."""
    words = str(units).split()
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        odd = next((word for word in words if not (word.isascii() and word.isdigit())), "nothing")
        yield "units_invalid", f"{odd[:20]!r} among {len(words)}"
    elif not length_fits(len(words), num_samples):
        yield "units_mismatch", f"{len(words)} units for {num_samples} samples"


def text_findings(texts: list[str]) -> Iterator[tuple[str, str]]:
    """What is odd about transcripts."""
    if texts and not any(text.strip() for text in texts):
        yield "empty_transcript", "no characters"
    odd = sorted(
        {name for text in texts if not text.isascii() or not text.isprintable() for name in oddities(text)}
    )
    if odd:
        yield "odd_characters", ", ".join(odd[:5])


def oddities(text: str) -> Iterator[str]:
    """Names of characters that transcripts should not have; of words that mix scripts; of encodings."""
    if unicodedata.normalize("NFC", text) != text:
        yield "not in Unicode's composed form (NFC)"
    for char in set(text) - {" "}:
        kind = unicodedata.category(char)
        if kind[0] in "CSZ" or char == "\N{REPLACEMENT CHARACTER}":
            yield f"U+{ord(char):04X} {unicodedata.name(char, 'without a name')}"
    for word in text.split():
        scripts = {unicodedata.name(c, "?").split(" ")[0] for c in word if c.isalpha()}
        if "LATIN" in scripts and scripts & {"CYRILLIC", "GREEK"}:
            yield f"{word!r} mixes scripts"
