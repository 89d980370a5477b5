"""Zipformer SSL: a front end, Zipformer stacks and masked-unit heads.

Sources: k2SSL (arXiv 2411.17100; icefall `egs/librispeech/SSL/zipformer`) and Zipformer (arXiv 2310.11230).
State-dict keys and shapes are k2SSL's.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from sslbench.nn.frontend import expand_to_contract
from sslbench.nn.masked_model import MaskedUnitModel
from sslbench.nn.whiten import load_whiten_state, whiten_state
from sslbench.upstream.zipformer.config import ZipformerConfig
from sslbench.upstream.zipformer.encoder import ZipformerEncoder, stitch


class ZipformerSSL(MaskedUnitModel):
    """A pretrainable Zipformer."""

    config_class: ClassVar[type[ZipformerConfig]] = ZipformerConfig
    family: ClassVar[str] = "zipformer"
    config: ZipformerConfig

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__(config, config.dims[0])
        self.encoder = ZipformerEncoder(config)
        self.add_heads([config.dims[0], *config.dims, max(config.dims)])

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

    def encode(self, features: Tensor, frame_lens: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """The encoder's input, every stack's output and the stitched output, (B, F, D) with their own D.

        Args:
            features: (B, F, C) from `features`.
            frame_lens: (B,) valid frames.
            mask: (B, F) bool, True where frames are masked.
        """
        x = self.embed(features, mask)
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
