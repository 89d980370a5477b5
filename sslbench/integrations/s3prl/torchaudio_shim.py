"""torchaudio's removed input/output calls (gone in 2.9) on soundfile and the `sox` program."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import soundfile
import torch

BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}


class AudioMetaData(NamedTuple):
    """The fields of torchaudio's former class of that name."""

    sample_rate: int
    num_frames: int
    num_channels: int
    bits_per_sample: int
    encoding: str


def info(path: Path | str, *_args: Any, **_kwargs: Any) -> AudioMetaData:
    """Header of an audio file."""
    found = soundfile.info(str(path))
    bits = BITS.get(found.subtype, 0)
    return AudioMetaData(found.samplerate, found.frames, found.channels, bits, found.subtype)


def load(
    path: Path | str,
    frame_offset: int = 0,
    num_frames: int = -1,
    normalize: bool = True,
    channels_first: bool = True,
    *_args: Any,
    **_kwargs: Any,
) -> tuple[torch.Tensor, int]:
    """(channels, T) float32 and the sample rate; `normalize=False` is not offered any more."""
    if not normalize:
        raise NotImplementedError("the torchaudio shim of sslbench reads float samples only")
    samples, rate = soundfile.read(
        str(path), start=frame_offset, frames=num_frames, dtype="float32", always_2d=True
    )
    wav = torch.from_numpy(samples)  # (T, channels)
    return (wav.t().contiguous() if channels_first else wav), rate


def save(
    path: Path | str, src: torch.Tensor, sample_rate: int, channels_first: bool = True, **_kwargs: Any
) -> None:
    """Write samples; the format follows the file name."""
    soundfile.write(str(path), (src.t() if channels_first else src).detach().cpu().numpy(), sample_rate)


def apply_effects_file(
    path: Path | str,
    effects: list[list[str]],
    normalize: bool = True,
    channels_first: bool = True,
    **_kwargs: Any,
) -> tuple[torch.Tensor, int]:
    """Read a file through sox effects."""
    return _sox([str(path)], effects, None, channels_first)


def apply_effects_tensor(
    tensor: torch.Tensor, sample_rate: int, effects: list[list[str]], channels_first: bool = True
) -> tuple[torch.Tensor, int]:
    """Pass samples through sox effects."""
    samples = (tensor.t() if channels_first else tensor).contiguous().float()  # (T, channels)
    source = ["-t", "f32", "-r", str(sample_rate), "-c", str(samples.shape[1]), "-"]
    return _sox(source, effects, samples.numpy().tobytes(), channels_first)


def _sox(
    source: list[str], effects: list[list[str]], stdin: bytes | None, channels_first: bool
) -> tuple[torch.Tensor, int]:
    words = [str(word) for effect in effects for word in effect]
    command = ["sox", "-V1", "-D", *source, "-t", "wav", "-e", "float", "-b", "32", "-", *words]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, check=True)
    except FileNotFoundError:
        raise RuntimeError(
            "the 'sox' program is missing; install it (apt install sox, conda install sox)"
        ) from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"sox failed: {error.stderr.decode(errors='replace').strip()}") from None
    samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32", always_2d=True)
    wav = torch.from_numpy(samples)
    return (wav.t().contiguous() if channels_first else wav), rate


def install(torchaudio: ModuleType) -> None:
    """Put the calls on the module and a `sox_effects` submodule beside it."""
    effects = ModuleType("torchaudio.sox_effects")
    setattr(effects, "apply_effects_file", apply_effects_file)  # noqa: B010
    setattr(effects, "apply_effects_tensor", apply_effects_tensor)  # noqa: B010
    calls = {
        "set_audio_backend": lambda _backend=None: None,
        "get_audio_backend": lambda: "soundfile",
        "list_audio_backends": lambda: ["soundfile"],
        "AudioMetaData": AudioMetaData,
        "info": info,
        "load": load,
        "save": save,
        "sox_effects": effects,
    }
    for name, value in calls.items():
        setattr(torchaudio, name, value)
    sys.modules["torchaudio.sox_effects"] = effects
