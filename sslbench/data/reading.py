"""A cut's samples, or an error that says in one word and one sentence why not."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import BinaryIO

import torch
from lhotse.cut import Cut, MonoCut

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.data.rows import TAR, read_place
from sslbench.errors import AudioError, SslbenchError

LENGTH_TOLERANCE_SAMPLES = 160  # manifests round durations


class CutReadError(AudioError):
    """A cut whose audio cannot be used; `kind` is one of `KINDS`."""

    KINDS = ("missing", "unreadable", "truncated", "wrong_rate", "empty", "not_finite")

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[CutReadError], tuple[str, str]]:
        return type(self), (self.kind, str(self))


def read_cut(cut: Cut) -> torch.Tensor:
    """Read a cut's audio.

    Returns:
        (T,) float32 at 16 kHz, channels averaged, T as the manifest says.

    Raises:
        CutReadError: missing, unreadable, truncated, empty, not finite, or at another rate.
    """
    if cut.sampling_rate != SAMPLE_RATE_HZ:
        raise CutReadError(
            "wrong_rate", f"{cut.id}: is sampled at {cut.sampling_rate} Hz; prepare the corpus at 16 kHz"
        )
    source = plain_file(cut)
    samples = _read_file(source, cut) if source else _read_lhotse(cut)
    if len(samples) == 0:
        raise CutReadError("empty", f"{cut.id}: holds no samples")
    # a sum is finite only if every sample is, and much faster than asking each; large ones may overflow it
    if not math.isfinite(samples.sum().item()) and not bool(torch.isfinite(samples).all()):
        raise CutReadError("not_finite", f"{cut.id}: holds samples that are not finite")
    return samples


def plain_file(cut: Cut) -> str | BinaryIO | None:
    """Where the bytes are, when the cut is a piece of one file (also one in a tar) without transforms.

    Read directly, about 3× faster than through lhotse.
    """
    if not isinstance(cut, MonoCut) or cut.recording is None or cut.recording.transforms:
        return None
    sources = cut.recording.sources
    if len(sources) != 1 or sources[0].type not in ("file", TAR):
        return None
    source = str(sources[0].source)
    if sources[0].type == "file":
        return source
    try:
        return io.BytesIO(read_place(source))
    except SslbenchError as error:
        raise CutReadError("missing", f"{cut.id}: {error}") from None


def _read_file(source: str | BinaryIO, cut: Cut) -> torch.Tensor:
    import soundfile

    path = source if isinstance(source, str) else "its audio in the shard"
    start, wanted = round(cut.start * SAMPLE_RATE_HZ), cut.num_samples
    try:
        with soundfile.SoundFile(source) as file:
            if file.samplerate != SAMPLE_RATE_HZ:
                raise CutReadError(
                    "wrong_rate",
                    f"{cut.id}: {path} is sampled at {file.samplerate} Hz, not 16000 as the manifest says",
                )
            if start >= file.frames > 0:
                raise CutReadError(
                    "truncated", f"{cut.id}: {path} has {file.frames} samples, the cut begins at {start}"
                )
            if start:  # a decoder seeks slowly, even to where it is
                file.seek(start)
            samples = file.read(wanted, dtype="float32")  # (T,), or (T, channels)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        if isinstance(source, str) and not Path(source).is_file():
            raise CutReadError("missing", f"{cut.id}: no such audio file {path}") from None
        raise CutReadError("unreadable", f"{cut.id}: {path} cannot be read as audio ({error})") from None
    if len(samples) < wanted - LENGTH_TOLERANCE_SAMPLES:
        raise CutReadError(
            "truncated",
            f"{cut.id}: {path} ends after {start + len(samples)} samples, {start + wanted} expected",
        )
    wav = torch.from_numpy(samples)
    return wav if wav.ndim == 1 else wav.mean(dim=1)


def _read_lhotse(cut: Cut) -> torch.Tensor:
    try:
        return torch.from_numpy(cut.load_audio()).float().mean(dim=0)
    except Exception as error:  # lhotse's backends raise many kinds, also bare Exception
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CutReadError("unreadable", f"{cut.id}: cannot be read as audio ({reason[0]})") from None
