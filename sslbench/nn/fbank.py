"""Filterbank front end: Kaldi's log-mel frames from the waveform, normalised, then stacked or convolved.

Sources: Kaldi's `fbank` as torchaudio.compliance.kaldi states it; stride-2 GLU convolutions of arXiv
1911.08460 as Fast-HuBERT (arXiv 2309.13860) uses them; stacking as in MelHuBERT (arXiv 2211.09944).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.device import send
from sslbench.errors import SslbenchError
from sslbench.nn.frontend import length_mask

WINDOW, HOP, FFT = 400, 160, 512
"""Samples: 25 ms windows every 10 ms."""
LOWEST_HZ = 20.0
PREEMPHASIS = 0.97
FULL_SCALE = 2.0**15
"""Kaldi reads 16-bit integers; log-mel values are those of that scale."""
UNFITTED_MEAN, UNFITTED_STD = 15.0, 4.0
"""Log-mel statistics before `fit`: means over the bins of those published for LibriSpeech (MelHuBERT's
repository, libri-960-mean-std: 14.95 and 3.97)."""

LEAST_VARIANCE = 0.01
"""Added in utterance normalisation: clips of a few frames have almost none, and log-mel rounds at 1e-5."""


@dataclass
class FbankConfig:
    """A filterbank and what brings its 100 Hz down."""

    mel_bins: int = 80
    """Triangular filters between 20 Hz and 8 kHz."""
    window: Literal["povey", "hamming"] = "povey"
    """Window of the Fourier transform."""
    cmvn: Literal["global", "utterance", "none"] = "global"
    """Mean and variance normalisation per bin: over the training data (as published; pretraining fits it
    before the first update), over each clip, or none."""
    stack: int = 1
    """Frames put side by side (MelHuBERT at 20 ms: 2)."""
    kernels: list[int] = field(default_factory=lambda: [5, 5])
    """Odd kernels of GLU convolutions, each halving the rate (Fast-HuBERT: two, hence 25 Hz)."""
    conv_channels: int = 1024
    """Output channels of all convolutions but the last, before the GLU halves them."""
    channels: int = 512
    """Channels after the last GLU."""

    def __post_init__(self) -> None:
        if self.stack < 1 or self.mel_bins < 1 or any(kernel % 2 == 0 for kernel in self.kernels):
            raise SslbenchError("fbank: stack and mel_bins must be positive and kernels odd")

    @property
    def stride(self) -> int:
        """Samples per frame of the front end."""
        return HOP * self.stack * 2 ** len(self.kernels)


def fbank(audio: Tensor, mel: Tensor, window: Tensor) -> Tensor:
    """Kaldi's log-mel filterbank without dither, for windows wholly inside the audio (`snip_edges`).

    Args:
        audio: (B, T) float32 in [-1, 1], T at least one window.
        mel: (FFT / 2 + 1, M) from `mel_filters`.
        window: (WINDOW,).

    Returns:
        (B, (T - 400) // 160 + 1, M) natural logarithms of energies.
    """
    with _without_autocast(audio.device.type):
        frames = (audio.float() * FULL_SCALE).unfold(1, WINDOW, HOP)  # (B, F, WINDOW)
        frames = frames - frames.mean(2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * window, n=FFT)
        energy = (spectrum.real.square() + spectrum.imag.square()) @ mel
        return energy.clamp_min(torch.finfo(torch.float32).eps).log()


def _without_autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    # 8 bits of mantissa are not enough for a spectrum; the meta device has no autocast at all
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def mel_filters(bins: int) -> Tensor:
    """(FFT / 2 + 1, bins) triangles of equal width on Kaldi's mel scale, 1127·ln(1 + f / 700).

    In fp32 throughout, as torchaudio has it: in narrow filters rounding moves log energies by 1e-4.
    """
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (LOWEST_HZ, SAMPLE_RATE_HZ / 2))
    width = (high - low) / (bins + 1)
    index = torch.arange(bins, dtype=torch.float32)
    left, centre, right = (low + (index + step) * width for step in (0.0, 1.0, 2.0))  # (bins,) each
    hertz = torch.arange(FFT // 2 + 1, dtype=torch.float32) * (SAMPLE_RATE_HZ / FFT)
    mel = (1127.0 * (1.0 + hertz / 700.0).log())[:, None]
    filters = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp_min(0.0)
    filters[-1] = 0.0  # Kaldi's banks leave out the Nyquist bin
    return filters


def analysis_window(name: str) -> Tensor:
    """(WINDOW,) symmetric window."""
    if name == "hamming":
        return torch.hamming_window(WINDOW, periodic=False)
    return torch.hann_window(WINDOW, periodic=False).pow(0.85)


class FbankFrontend(nn.Module):
    """Log-mel frames, normalised, stacked or convolved; a clip's frames do not depend on its padding.

    Attributes:
        channels: width of the frames.
        stride: samples per frame.
    """

    mel: Tensor
    window: Tensor
    cmvn_mean: Tensor
    cmvn_std: Tensor

    def __init__(self, config: FbankConfig) -> None:
        super().__init__()
        self.config = config
        self.stride = config.stride
        self.register_buffer("mel", mel_filters(config.mel_bins), persistent=False)
        self.register_buffer("window", analysis_window(config.window), persistent=False)
        if config.cmvn == "global":
            self.register_buffer("cmvn_mean", torch.full((config.mel_bins,), UNFITTED_MEAN))
            self.register_buffer("cmvn_std", torch.full((config.mel_bins,), UNFITTED_STD))
        channels = config.mel_bins * config.stack
        convolutions = []
        for index, kernel in enumerate(config.kernels):
            last = index == len(config.kernels) - 1
            width = 2 * config.channels if last else config.conv_channels
            convolutions.append(nn.Conv1d(channels, width, kernel, stride=2, padding=kernel // 2))
            channels = width // 2
        self.conv_layers = nn.ModuleList(convolutions)
        self.channels = channels

    def forward(self, audio: Tensor, audio_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Frames of padded clips.

        Args:
            audio: (B, T) float, zero beyond each length; clips below one window are zero-padded to it.
            audio_lens: (B,) int64 samples, with the audio or on the CPU.

        Returns:
            (B, F, channels), zero beyond each clip's frames, and frame lengths (B,) >= 1 where `audio_lens`
            lies.
        """
        x, lens = self.log_mel(audio, audio_lens)
        x = self._keep(self.normalise(x, lens), lens)
        stack = self.config.stack
        if stack > 1:
            x = F.pad(x, (0, 0, 0, -x.shape[1] % stack))
            x = x.reshape(x.shape[0], -1, stack * x.shape[2])
            lens = (lens + stack - 1) // stack
        for convolution in self.conv_layers:
            # Zeros beyond a clip are what the convolution's own padding gives at the end of a single one.
            x = F.glu(convolution(x.transpose(1, 2)), dim=1).transpose(1, 2)
            lens = (lens + 1) // 2
            x = self._keep(x, lens)
        return x, lens

    def log_mel(self, audio: Tensor, audio_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel frames before normalisation, (B, F, mel_bins) at 100 Hz, and frame lengths (B,)."""
        if audio.shape[1] < WINDOW:
            audio = F.pad(audio, (0, WINDOW - audio.shape[1]))
        return fbank(audio, self.mel, self.window), (audio_lens.clamp_min(WINDOW) - WINDOW) // HOP + 1

    def normalise(self, x: Tensor, lens: Tensor) -> Tensor:
        """Mean and variance normalisation of (B, F, mel_bins) log-mel frames."""
        if self.config.cmvn == "global":
            return (x - self.cmvn_mean) / self.cmvn_std
        if self.config.cmvn == "none":
            return x
        count = send(lens, x.device)[:, None, None]
        x = self._keep(x - self._keep(x, lens).sum(1, keepdim=True) / count, lens)
        return x / (x.square().sum(1, keepdim=True) / count + LEAST_VARIANCE).sqrt()

    @torch.no_grad()
    def fit(self, clips: Iterable[tuple[Tensor, Tensor]]) -> int:
        """Set the global mean and standard deviation of every bin.

        Args:
            clips: batches of (B, T) audio and (B,) lengths.

        Returns:
            How many frames were seen; with none, or another `cmvn`, nothing changes.
        """
        if self.config.cmvn != "global":
            return 0
        count = 0
        total, square = (torch.zeros(2, self.config.mel_bins, dtype=torch.float64)).unbind()
        for audio, audio_lens in clips:
            device = self.mel.device
            x, lens = self.log_mel(audio.to(device), audio_lens.to(device))
            valid = x[length_mask(lens, x.shape[1])].double().cpu()  # (N, mel_bins)
            count += len(valid)
            total, square = total + valid.sum(0), square + valid.square().sum(0)
        if count:
            mean = total / count
            self.cmvn_mean.copy_(mean)
            self.cmvn_std.copy_((square / count - mean.square()).clamp_min(1e-4).sqrt())
        return count

    @staticmethod
    def _keep(x: Tensor, lens: Tensor) -> Tensor:
        return x.masked_fill(~length_mask(send(lens, x.device), x.shape[1])[..., None], 0.0)
