"""Reading audio: 16 kHz mono float32, or an error that names the file and the mend."""

from __future__ import annotations

from pathlib import Path

import torch

from sslbench.errors import AudioError

SAMPLE_RATE_HZ = 16_000
BLOCK_SAMPLES = 1 << 18


def load_audio(
    path: Path | str, sample_rate_hz: int = SAMPLE_RATE_HZ, resample: bool = False
) -> torch.Tensor:
    """Read one file as a mono waveform.

    Args:
        path: any format that libsndfile reads (wav, flac, ogg, mp3, sph).
        sample_rate_hz: the rate wanted.
        resample: convert other rates instead of refusing them.

    Returns:
        (T,) float32 in [-1, 1], at `sample_rate_hz`; channels are averaged.

    Raises:
        AudioError: missing, unreadable, empty, not finite, or at another rate without `resample`.
    """
    import soundfile

    if not Path(path).is_file():
        raise AudioError(f"{path}: no such audio file")
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            blocks = [file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)]  # (T, channels) each
            # not all at once: a damaged header can promise more samples than memory holds
            while len(blocks[-1]) == BLOCK_SAMPLES:
                blocks.append(file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"{path}: cannot be read as audio ({error}); replace or remove the file") from None
    wav = torch.cat([torch.from_numpy(block).mean(dim=1) for block in blocks])
    if len(wav) == 0:
        raise AudioError(f"{path}: holds no samples; replace or remove the file")
    if not bool(torch.isfinite(wav).all()):
        raise AudioError(f"{path}: holds samples that are not finite; replace or remove the file")
    if rate == sample_rate_hz:
        return wav
    if not resample:
        raise AudioError(
            f"{path}: is sampled at {rate} Hz but {sample_rate_hz} Hz is needed; convert it, "
            "or let 'sslbench data prepare' resample it"
        )
    import torchaudio

    return torchaudio.functional.resample(wav, rate, sample_rate_hz)
