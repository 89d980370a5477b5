"""HuBERT: k2SSL's optimized form (cross-entropy) and the original (cosine objective), one class.

Sources: HuBERT arXiv 2106.07447; k2SSL arXiv 2411.17100 and icefall `egs/librispeech/SSL/hubert`.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.nn.frontend import (
    WaveformCNN,
    expand_to_contract,
    length_mask,
    normalise_waveform,
    scale_gradient,
)
from sslbench.nn.masking import span_mask
from sslbench.nn.objective import FEATURE_PENALTY, MaskedCosineLoss, MaskedUnitLoss, feature_penalty
from sslbench.nn.transformer import TransformerEncoder
from sslbench.nn.upstream import LossOutput, PretrainBatch, SSLModel
from sslbench.upstream.hubert_k2ssl.config import HubertConfig


class Hubert(SSLModel):
    """Waveform CNN, Transformer and a masked-unit head; state-dict keys and shapes as in k2SSL.

    Attributes:
        mask_generator: source of the training masks, on the CPU; save its state to resume exactly.
    """

    config_class: ClassVar[type[HubertConfig]] = HubertConfig
    family: ClassVar[str] = "hubert_k2ssl"

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.config: HubertConfig = config
        self.compat = config.compat == "k2ssl"
        channels = config.conv_layers[-1][0]
        self.feature_extractor = WaveformCNN(
            config.conv_layers, config.extractor_mode, config.conv_bias, leak_padding=self.compat
        )
        self.stride = 1
        for _, _, step in config.conv_layers:
            self.stride *= step
        self.layer_norm = nn.LayerNorm(channels)
        self.post_extract_proj = nn.Linear(channels, config.dim) if channels != config.dim else None
        self.mask_emb = nn.Parameter(torch.empty(config.dim).uniform_())
        self.encoder = TransformerEncoder(config.shape())
        self.final_proj: MaskedUnitLoss | MaskedCosineLoss
        if config.objective == "ce":
            self.final_proj = MaskedUnitLoss(config.dim, config.num_units, config.temperature)
        else:
            self.final_proj = MaskedCosineLoss(config.dim, config.final_dim, config.temperature)
            embeddings = torch.empty(config.num_units, config.final_dim).uniform_()
            self.label_embs_concat = nn.Parameter(embeddings)
        self.mask_generator = torch.Generator().manual_seed(config.mask_seed)

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

    def masked_loss(
        self, features: torch.Tensor, frame_lens: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor
    ) -> LossOutput:
        """Loss for given masks.

        Args:
            features: (B, F, C) as `features` returns them.
            frame_lens: (B,) valid frames.
            labels: (B, at least F, or filled up with -1) int64 units.
            mask: (B, F) bool.

        Raises:
            SslbenchError: a label outside the head's classes.
        """
        total = features.shape[1]
        labels = F.pad(labels[:, :total], (0, max(0, total - labels.shape[1])), value=-1)
        if not labels.is_cuda and int(labels.max()) >= self.config.num_units:
            raise SslbenchError(
                f"hubert: label {int(labels.max())} does not fit num_units {self.config.num_units}; "
                "set num_units to the number of k-means clusters"
            )
        valid = length_mask(frame_lens, total)
        penalty = feature_penalty(features, None if self.compat else valid)
        hidden = self.encode(features, frame_lens, mask)[-1]
        if isinstance(self.final_proj, MaskedUnitLoss):
            loss, count, correct = self.final_proj(hidden, labels, mask & valid)
        else:
            loss, count, correct = self.final_proj(hidden, labels, mask & valid, self.label_embs_concat)
        loss = loss + FEATURE_PENALTY * penalty * count
        return LossOutput(loss, count, {"correct": correct, "feature_penalty": penalty.detach() * count})

    def features(self, audio: torch.Tensor, audio_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """CNN output before its LayerNorm, (B, F, C), and valid frames (B,)."""
        if self.config.normalize:
            audio = normalise_waveform(audio, audio_lens)
        if self.config.feature_grad_mult > 0:
            features, frame_lens = self.feature_extractor(audio, audio_lens)
            features = scale_gradient(features, self.config.feature_grad_mult)
        else:
            with torch.no_grad():
                features, frame_lens = self.feature_extractor(audio, audio_lens)
        if self.compat:
            # The published code folds the sample mask into frames and calls a frame valid when any of its
            # samples is, which gives up to one frame more than the convolution arithmetic.
            per_frame = max(1, audio.shape[1] // features.shape[1])
            frame_lens = ((audio_lens + per_frame - 1) // per_frame).clamp(1, features.shape[1])
        return features, frame_lens

    def encode(
        self, features: torch.Tensor, frame_lens: torch.Tensor, mask: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Transformer states (layers + 1 of (B, F, D)) of CNN features, masked where `mask` is True."""
        x = self.layer_norm(features)
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        x = F.dropout(x, self.config.dropout_input, self.training)
        if mask is not None:
            x = torch.where(mask[..., None], self.mask_emb.to(x.dtype), x)
        full = bool((frame_lens == x.shape[1]).all())
        return cast(
            list[torch.Tensor], self.encoder(x, None if full else length_mask(frame_lens, x.shape[1]))
        )

    def hidden_states(self, audio: torch.Tensor, audio_lens: torch.Tensor) -> list[torch.Tensor]:
        """The first layer's input and every layer's output: layers + 1 of (B, ceil(T / stride), D)."""
        features, frame_lens = self.features(audio, audio_lens)
        states = self.encode(features, frame_lens)
        return [
            expand_to_contract(x, frame_lens, audio_lens, self.stride, max_samples=audio.shape[1])
            for x in states
        ]


MODEL = Hubert
