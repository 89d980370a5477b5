"""HuBERT: k2SSL's optimized form (cross-entropy) and the original (cosine objective), one class.

Sources: HuBERT arXiv 2106.07447; k2SSL arXiv 2411.17100 and icefall `egs/librispeech/SSL/hubert`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from sslbench.nn.frontend import expand_to_contract, is_padded, length_mask
from sslbench.nn.masked_model import MaskedWaveformModel
from sslbench.nn.objective import MaskedCosineLoss, MaskedUnitLoss
from sslbench.nn.transformer import TransformerEncoder
from sslbench.upstream.hubert_k2ssl.config import HubertConfig


class Hubert(MaskedWaveformModel):
    """Waveform CNN, Transformer and a masked-unit head; state-dict keys and shapes as in k2SSL."""

    config_class: ClassVar[type[HubertConfig]] = HubertConfig
    family: ClassVar[str] = "hubert_k2ssl"

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config, config.dim)
        self.encoder = TransformerEncoder(config.shape())
        if config.objective == "ce":
            self.final_proj = MaskedUnitLoss(config.dim, config.num_units, config.temperature)
        else:
            self.final_proj = MaskedCosineLoss(config.dim, config.final_dim, config.temperature)
            embeddings = torch.empty(config.num_units, config.final_dim).uniform_()
            self.label_embs_concat = nn.Parameter(embeddings)

    def predict(self, hidden: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the base class; the cosine objective compares with the label embeddings."""
        if isinstance(self.final_proj, MaskedCosineLoss):
            return self.final_proj(hidden, labels, mask, self.label_embs_concat)
        return super().predict(hidden, labels, mask)

    def encode(self, features: Tensor, frame_lens: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """The first layer's input and every layer's output: layers + 1 of (B, F, D)."""
        x = self.embed(features, mask)
        valid = length_mask(frame_lens, x.shape[1]) if is_padded(frame_lens, x.shape[1]) else None
        states: list[Tensor] = self.encoder(x, valid)
        return states

    def hidden_states(self, audio: Tensor, audio_lens: Tensor) -> list[Tensor]:
        """The first layer's input and every layer's output: layers + 1 of (B, ceil(T / stride), D)."""
        features, frame_lens = self.features(audio, audio_lens)
        return [
            expand_to_contract(x, frame_lens, audio_lens, self.stride, max_samples=audio.shape[1])
            for x in self.encode(features, frame_lens)
        ]


MODEL = Hubert
