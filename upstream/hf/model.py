"""Any speech encoder of transformers as an upstream: every layer, exact frames, no influence of padding."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from sslbench.convert.arguments import truth
from sslbench.nn.frontend import (
    expand_to_contract,
    is_padded,
    length_mask,
    min_samples,
    normalise_waveform,
)
from sslbench.nn.upstream import SSLModel
from sslbench.upstream.hf.fbank import StackedFbank
from sslbench.upstream.hf.padding import mend

NORMALISE_EPS = 1e-7
"""Added to the variance by transformers' Wav2Vec2FeatureExtractor (fairseq's own code adds 1e-5)."""


class HFEncoder(SSLModel):
    """A transformers encoder with its preprocessing; it can be probed and fine-tuned, not pretrained."""

    family: ClassVar[str] = "hf"

    def __init__(self, model: Any, preprocessor: dict[str, Any]) -> None:
        """Wrap a model.

        Args:
            model: an instance of one of the supported classes; its padding leaks are mended in place, and
                layer skips and transformers' own SpecAugment are switched off.
            preprocessor: its preprocessor_config.json, or {} for the defaults of its feature extractor.
        """
        super().__init__()
        self.config = model.config
        self.config.layerdrop = 0.0  # every forward gives every layer
        self.config.apply_spec_augment = False
        self.encoder = model
        self.extent = mend(model)
        self.fbank = None
        if self.config.model_type == "wav2vec2-bert":
            self.fbank = StackedFbank(preprocessor, self.config.feature_projection_input_dim)
        if self.fbank is not None:
            self.stride, self.window = self.fbank.stride, self.fbank.min_samples
        else:
            self.geometry = list(zip(self.config.conv_kernel, self.config.conv_stride, strict=True))
            self.stride, self.window = math.prod(self.config.conv_stride), min_samples(self.geometry)
        self.normalise = self.fbank is None and truth("do_normalize", preprocessor.get("do_normalize", True))

    def hidden_states(self, audio: Tensor, audio_lens: Tensor) -> list[Tensor]:
        """The first layer's input and every layer's output: layers + 1 of (B, ceil(T / stride), D).

        The last is what transformers calls `last_hidden_state`: after the closing LayerNorm, where there
        is one, and before an adapter.
        """
        samples = audio.shape[1]
        if self.normalise:
            audio = normalise_waveform(audio, audio_lens, NORMALISE_EPS)
        audio = F.pad(audio, (0, max(0, self.window - samples)))
        lens = audio_lens.clamp_min(self.window)
        if self.fbank is None:
            inputs, frame_lens = audio, self._frame_lens(lens)
        else:
            inputs, frame_lens = self.fbank(audio, lens)  # (B, F, bins)
        states = self._encode(inputs, lens if is_padded(lens, audio.shape[1]) else None, frame_lens)
        return [
            expand_to_contract(x, frame_lens, audio_lens, self.stride, max_samples=samples) for x in states
        ]

    def _encode(self, inputs: Tensor, lens: Tensor | None, frame_lens: Tensor) -> list[Tensor]:
        """Run transformers' forward; `lens` is None where nothing is padded."""
        mask = None
        if lens is not None:
            total = inputs.shape[1]
            valid_lens = frame_lens if self.fbank is not None else lens
            mask = length_mask(valid_lens, total).long()
            frames = total if self.fbank is not None else int(self._frame_lens(lens.new_tensor(total)))
            self.extent.samples, self.extent.valid = lens, length_mask(frame_lens, frames)
        try:
            out = self.encoder(inputs, attention_mask=mask, output_hidden_states=True, return_dict=True)
        finally:
            self.extent.samples = self.extent.valid = None
        states = list(out.hidden_states)
        if getattr(self.encoder, "adapter", None) is None:
            states[-1] = out.last_hidden_state
        return states

    def _frame_lens(self, lens: Tensor) -> Tensor:
        for kernel, stride in self.geometry:
            lens = (lens - kernel) // stride + 1
        return lens
