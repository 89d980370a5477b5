"""What waveform encoders trained on masked units share: front end, masking, loss."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.errors import SslbenchError
from sslbench.nn.frontend import WaveformCNN, length_mask, normalise_waveform, scale_gradient
from sslbench.nn.masking import span_mask
from sslbench.nn.objective import FEATURE_PENALTY, feature_penalty
from sslbench.nn.upstream import LossOutput, PretrainBatch, SSLModel


class MaskedWaveformModel(SSLModel):
    """Waveform CNN, projection, span masks and a masked-unit head; a family adds the encoder between.

    Module names are those of fairseq's and k2SSL's models, so that their state dicts fit. A family's config
    has `conv_layers`, `extractor_mode`, `conv_bias`, `normalize`, `feature_grad_mult`, `dropout_input`,
    `mask_prob`, `mask_span`, `mask_seed`, `num_units` and `compat`.

    Attributes:
        mask_generator: source of the training masks, on the CPU; part of `training_state`.
    """

    final_proj: nn.Module

    def __init__(self, config: Any, dim: int) -> None:
        """Build all but the encoder and the head.

        Args:
            config: the family's settings.
            dim: width of the encoder's input.
        """
        super().__init__()
        self.config = config
        self.compat = config.compat == "k2ssl"
        channels = config.conv_layers[-1][0]
        self.stride = math.prod(step for _, _, step in config.conv_layers)
        self.feature_extractor = WaveformCNN(
            config.conv_layers, config.extractor_mode, config.conv_bias, leak_padding=self.compat
        )
        self.layer_norm = nn.LayerNorm(channels)
        self.post_extract_proj = None if channels == dim else nn.Linear(channels, dim)
        self.mask_emb = nn.Parameter(torch.empty(dim).uniform_())
        self.mask_generator = torch.Generator().manual_seed(config.mask_seed)

    def encode(self, features: Tensor, frame_lens: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """The encoder's states of CNN features, the one that the head reads last.

        Args:
            features: (B, F, C) from `features`.
            frame_lens: (B,) valid frames.
            mask: (B, F) bool, True where frames are replaced by the mask embedding.
        """
        raise NotImplementedError

    def predict(self, hidden: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss sum, count and correct predictions over the masked frames."""
        result: tuple[Tensor, Tensor, Tensor] = self.final_proj(hidden, labels, mask)
        return result

    def forward(self, batch: PretrainBatch) -> LossOutput:
        """Masked-unit loss of a batch, with masks from `mask_generator`.

        In eval mode the masks depend on the batch and `mask_seed` alone, so that a development loss is
        the same whenever it is computed.
        """
        features, frame_lens = self.features(batch.audio, batch.audio_lens)
        generator = self.mask_generator
        if not self.training:
            generator = torch.Generator().manual_seed(self.config.mask_seed)
        # Only labelled frames can be masked: labels may end a frame early.
        labelled = (batch.labels[:, : features.shape[1]] >= 0).sum(1)
        lens = torch.minimum(frame_lens, labelled.to(frame_lens.device))
        mask = span_mask(lens, features.shape[1], self.config.mask_prob, self.config.mask_span, generator)
        return self.masked_loss(features, frame_lens, batch.labels, mask)

    def masked_loss(self, features: Tensor, frame_lens: Tensor, labels: Tensor, mask: Tensor) -> LossOutput:
        """Loss for given masks.

        Args:
            features: (B, F, C) as `features` returns them.
            frame_lens: (B,) valid frames.
            labels: (B, any number of frames) int64 units, -1 where there is none.
            mask: (B, F) bool.

        Raises:
            SslbenchError: a label outside the head's classes.
        """
        total = features.shape[1]
        labels = F.pad(labels[:, :total], (0, max(0, total - labels.shape[1])), value=-1)
        if not labels.is_cuda and int(labels.max()) >= self.config.num_units:
            raise SslbenchError(
                f"{self.family}: label {int(labels.max())} does not fit num_units {self.config.num_units}; "
                "set num_units to the number of k-means clusters"
            )
        valid = length_mask(frame_lens, total)
        penalty = feature_penalty(features, None if self.compat else valid)
        hidden = self.encode(features, frame_lens, mask)[-1]
        loss, count, correct = self.predict(hidden, labels, mask & valid)
        loss = loss + FEATURE_PENALTY * penalty * count
        return LossOutput(loss, count, {"correct": correct, "feature_penalty": penalty.detach() * count})

    def features(self, audio: Tensor, audio_lens: Tensor) -> tuple[Tensor, Tensor]:
        """CNN output before its LayerNorm, (B, F, C), and valid frames (B,)."""
        if self.config.normalize:
            audio = normalise_waveform(audio, audio_lens)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.feature_grad_mult > 0):
            features, frame_lens = self.feature_extractor(audio, audio_lens)
        features = scale_gradient(features, self.config.feature_grad_mult)
        if self.compat:
            # The published code folds the sample mask into frames and calls a frame valid when any of its
            # samples is, which gives up to one frame more than the convolution arithmetic.
            per_frame = max(1, audio.shape[1] // features.shape[1])
            frame_lens = ((audio_lens + per_frame - 1) // per_frame).clamp(1, features.shape[1])
        return features, frame_lens

    def embed(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """The encoder's input (B, F, dim): features normalised, projected and masked."""
        x: Tensor = self.layer_norm(features)
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        x = F.dropout(x, self.config.dropout_input, self.training)
        if mask is not None:
            x = torch.where(mask[..., None], self.mask_emb.to(x.dtype), x)
        return x
