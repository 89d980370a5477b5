"""Span masking while fine-tuning: frames of the encoder's input replaced as in pretraining."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.nn.masking import span_mask


class SpanMasker:
    """Masks spans of an encoder's input with its own mask embedding, in the passes that it is told of.

    k2SSL keeps pretraining's masks on (probability 0.65, 10 frames) while it fine-tunes.
    """

    def __init__(self, upstream: nn.Module, prob: float, span_ms: float) -> None:
        """Attach.

        Args:
            upstream: one of ours, whose model embeds its input by `embed(features, mask)`.
            prob: share of frames covered if spans did not overlap.
            span_ms: length of a span.

        Raises:
            SslbenchError: an upstream that cannot be masked inside.
        """
        model: Any = getattr(upstream, "model", None)
        if not hasattr(model, "embed"):
            raise SslbenchError(
                "finetune: span_mask_prob needs one of our encoders, whose input can be masked; "
                "time_masks masks the features of any upstream"
            )
        self._stride = int(model.stride)
        self._prob, self._span = prob, max(1, round(span_ms * 16 / self._stride))
        self._lens: torch.Tensor | None = None
        self._embed: Any = model.embed
        model.embed = self._masked

    def use_lens(self, audio_lens: torch.Tensor | None) -> None:
        """(B,) samples of the next pass's clips; None to leave it unmasked."""
        self._lens = audio_lens

    def _masked(self, features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if mask is None and self._lens is not None:
            frames = features.shape[1]
            lens = torch.div(self._lens + self._stride - 1, self._stride, rounding_mode="floor")
            mask = span_mask(lens.clamp(max=frames), frames, self._prob, self._span, None)
            mask = mask.to(features.device)
        embedded: torch.Tensor = self._embed(features, mask)
        return embedded
