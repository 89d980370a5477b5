"""Wav2Vec2-BERT's input: stacked log-mel frames, normalised per clip and mel bin.

Source: transformers' SeamlessM4TFeatureExtractor, whose filters and window are taken from an instance of it;
here in torch, batched, with gradients, and without influence of padding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.nn.frontend import length_mask

WINDOW, HOP, FFT = 400, 160, 512
PREEMPHASIS, FLOOR, FULL_SCALE = 0.97, 1.192092955078125e-07, 2.0**15


class StackedFbank(nn.Module):
    """Waveforms to (mel bins × stack)-wide frames, one per `stack` × 10 ms."""

    mel: Tensor
    window: Tensor

    def __init__(self, preprocessor: dict[str, Any]) -> None:
        """Take filters, window and stacking from the folder's preprocessor settings."""
        super().__init__()
        from transformers import SeamlessM4TFeatureExtractor

        extractor: Any = SeamlessM4TFeatureExtractor(**preprocessor)
        self.stack = int(extractor.stride)
        self.stride = HOP * self.stack
        self.min_samples = WINDOW + HOP * (self.stack - 1)
        self.register_buffer("mel", torch.tensor(extractor.mel_filters).float(), persistent=False)
        self.register_buffer("window", torch.tensor(extractor.window).float(), persistent=False)

    def forward(self, audio: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Frames of padded clips.

        Args:
            audio: (B, T) float, zero beyond each length.
            lens: (B,) int64 samples, at least `min_samples`.

        Returns:
            (B, F, bins * stack), zero beyond each clip's frames, and frame counts (B,).
        """
        frames = (audio * FULL_SCALE).unfold(1, WINDOW, HOP)  # (B, N, WINDOW)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        frames = (frames - PREEMPHASIS * before) * self.window
        power = torch.fft.rfft(F.pad(frames, (0, FFT - WINDOW))).abs().square()  # (B, N, FFT / 2 + 1)
        x = torch.log((power @ self.mel).clamp_min(FLOOR))  # (B, N, bins)
        counts = (lens - WINDOW) // HOP + 1
        x = _normalise(x, counts)
        batch, total, bins = x.shape
        kept = total - total % self.stack
        return x[:, :kept].reshape(batch, kept // self.stack, bins * self.stack), counts // self.stack


def _normalise(x: Tensor, counts: Tensor) -> Tensor:
    """Mean 0 and (sample) variance 1 per bin over each clip's own frames; zero beyond. (B, N, bins)."""
    valid = length_mask(counts, x.shape[1])[..., None]
    number = counts[:, None, None].to(x.dtype)
    mean = x.masked_fill(~valid, 0.0).sum(1, keepdim=True) / number
    x = (x - mean).masked_fill(~valid, 0.0)
    variance = x.square().sum(1, keepdim=True) / (number - 1).clamp_min(1)
    return x * torch.rsqrt(variance + 1e-7)
