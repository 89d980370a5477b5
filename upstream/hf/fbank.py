"""Wav2Vec2-BERT's input: stacked log-mel frames, normalised per clip and mel bin.

Source: transformers' SeamlessM4TFeatureExtractor; here batched, with gradients, without influence of padding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslbench.errors import SslbenchError
from sslbench.nn.fbank import HOP, WINDOW, analysis_window, fbank, mel_filters
from sslbench.nn.frontend import length_mask


class StackedFbank(nn.Module):
    """Waveforms to (mel bins × stack)-wide frames, one per `stack` × 10 ms."""

    mel: Tensor
    window: Tensor

    def __init__(self, preprocessor: dict[str, Any], width: int) -> None:
        """Prepare the filters.

        Args:
            preprocessor: `num_mel_bins` (80) and `stride` (2) of the folder's preprocessor_config.json.
            width: of the model's input.

        Raises:
            SslbenchError: the two do not fit.
        """
        super().__init__()
        bins, self.stack = int(preprocessor.get("num_mel_bins", 80)), int(preprocessor.get("stride", 2))
        if bins * self.stack != width:
            raise SslbenchError(
                f"hf: {bins} mel bins x {self.stack} frames do not give the {width} inputs of the model; "
                "preprocessor_config.json and config.json belong to different models"
            )
        self.stride = HOP * self.stack
        self.min_samples = WINDOW + HOP * (self.stack - 1)
        self.register_buffer("mel", mel_filters(bins), persistent=False)
        self.register_buffer("window", analysis_window("povey"), persistent=False)

    def forward(self, audio: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Frames of padded clips.

        Args:
            audio: (B, T) float, zero beyond each length.
            lens: (B,) int64 samples, at least `min_samples`.

        Returns:
            (B, F, bins * stack), zero beyond each clip's frames, and frame counts (B,).
        """
        counts = (lens - WINDOW) // HOP + 1
        x = _normalise(fbank(audio, self.mel, self.window), counts)  # (B, N, bins)
        batch, total, bins = x.shape
        kept = total - total % self.stack
        return x[:, :kept].reshape(batch, kept // self.stack, bins * self.stack), counts // self.stack


def _normalise(x: Tensor, counts: Tensor) -> Tensor:
    """Mean 0 and sample variance 1 per bin over each clip's own frames; zero beyond. (B, N, bins)."""
    valid = length_mask(counts, x.shape[1])[..., None]
    number = counts[:, None, None].to(x.dtype)
    mean = x.masked_fill(~valid, 0.0).sum(1, keepdim=True) / number
    x = (x - mean).masked_fill(~valid, 0.0)
    variance = x.square().sum(1, keepdim=True) / (number - 1).clamp_min(1)
    return x * torch.rsqrt(variance + 1e-7)
