"""Zipformer SSL: waveform CNN, Zipformer stacks and a masked-unit head.

Sources: k2SSL (arXiv 2411.17100; icefall `egs/librispeech/SSL/zipformer`) and Zipformer (arXiv 2310.11230).
State-dict keys and shapes are k2SSL's.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.errors import SslbenchError
from sslbench.nn.frontend import (
    WaveformCNN,
    expand_to_contract,
    length_mask,
    normalise_waveform,
    scale_gradient,
)
from sslbench.nn.masking import span_mask
from sslbench.nn.objective import FEATURE_PENALTY, MaskedUnitLoss, feature_penalty
from sslbench.nn.upstream import LossOutput, PretrainBatch, SSLModel
from sslbench.nn.whiten import load_whiten_state, whiten_state
from sslbench.upstream.zipformer.config import ZipformerConfig
from sslbench.upstream.zipformer.encoder import ZipformerEncoder, stitch


class ZipformerSSL(SSLModel):
    """A pretrainable Zipformer.

    Attributes:
        mask_generator: source of the training masks, on the CPU; part of `training_state`.
    """

    config_class: ClassVar[type[ZipformerConfig]] = ZipformerConfig
    family: ClassVar[str] = "zipformer"

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__()
        self.config: ZipformerConfig = config
        self.compat = config.compat == "k2ssl"
        channels = config.conv_layers[-1][0]
        self.stride = math.prod(step for _, _, step in config.conv_layers)
        self.mask_emb = nn.Parameter(torch.empty(config.dims[0]).uniform_())
        self.feature_extractor = WaveformCNN(
            config.conv_layers, config.extractor_mode, config.conv_bias, leak_padding=self.compat
        )
        same = channels == config.dims[0]
        self.post_extract_proj = None if same else nn.Linear(channels, config.dims[0])
        self.encoder = ZipformerEncoder(config)
        self.layer_norm = nn.LayerNorm(channels)
        self.final_proj = MaskedUnitLoss(max(config.dims), config.num_units, config.temperature)
        self.mask_generator = torch.Generator().manual_seed(config.mask_seed)

    def set_batch_count(self, batch_count: float) -> None:
        """Move dropout, skipping and balancing to this place in training."""
        self.encoder.set_batch_count(batch_count * self.config.schedule_speed)

    def training_state(self) -> dict[str, Tensor]:
        """The mask generator's state and what the Whiten modules saw last."""
        return {**super().training_state(), "whiten": whiten_state(self)}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Restore `training_state`."""
        super().load_training_state(state)
        if "whiten" in state:
            load_whiten_state(self, state["whiten"])

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
        lens = torch.minimum(frame_lens, labelled)
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
                f"zipformer: label {int(labels.max())} does not fit num_units {self.config.num_units}; "
                "set num_units to the number of k-means clusters"
            )
        valid = length_mask(frame_lens, total)
        penalty = feature_penalty(features, None if self.compat else valid)
        hidden = self.encode(features, frame_lens, mask)[-1]
        loss, count, correct = self.final_proj(hidden, labels, mask & valid)
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
            # The published code counts a frame as valid when any sample of its stride is.
            per_frame = max(1, audio.shape[1] // features.shape[1])
            frame_lens = ((audio_lens + per_frame - 1) // per_frame).clamp(1, features.shape[1])
        return features, frame_lens

    def encode(self, features: Tensor, frame_lens: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """The encoder's input, every stack's output and the stitched output, (B, F, D) with their own D.

        Args:
            features: (B, F, C) from `features`.
            frame_lens: (B,) valid frames.
            mask: (B, F) bool, True where frames are replaced by the mask embedding.
        """
        x = self.layer_norm(features)
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        x = F.dropout(x, self.config.dropout_input, self.training)
        if mask is not None:
            x = torch.where(mask[..., None], self.mask_emb.to(x.dtype), x)
        output, stacks = self.encoder(x, frame_lens, "ignore" if self.compat else "safe")
        return [x, *stacks, output]

    def hidden_states(self, audio: Tensor, audio_lens: Tensor) -> list[Tensor]:
        """The encoder's input, every stack's output and the model's stitched output, at one width.

        Returns:
            Tensors (B, ceil(T / stride), max dims). The last stack is left out where it is the output.
        """
        features, frame_lens = self.features(audio, audio_lens)
        *states, output = self.encode(features, frame_lens)
        width = output.shape[-1]
        if self.config.dims[-1] == width:
            states.pop()
        if self.config.features == "stitched":
            states = [stitch(states[: i + 1]) for i in range(len(states))]
        states = [F.pad(x, (0, width - x.shape[-1])) for x in states]
        return [
            expand_to_contract(x, frame_lens, audio_lens, self.stride, max_samples=audio.shape[1])
            for x in [*states, output]
        ]


MODEL = ZipformerSSL
