"""The recognizer: an upstream, what tunes it, a weighted sum over its layers, and a head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.featurizer import WeightedSum
from sslbench.finetune.heads import Head
from sslbench.finetune.peft.ladder import Ladder
from sslbench.finetune.peft.tuning import BACKBONE_RUNS, make_tuning
from sslbench.finetune.spans import SpanMasker
from sslbench.nn.frontend import length_mask
from sslbench.nn.upstream import LossOutput

Augment = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Recognizer(nn.Module):
    """An upstream, which may be frozen, with a head.

    A frozen upstream is not part of `state_dict`: its own checkpoint holds its weights. What parameter-
    efficient tuning adds to it is, as `tuning`.
    """

    def __init__(self, upstream: nn.Module, classes: int, config: FinetuneConfig) -> None:
        super().__init__()
        has_parameters = any(True for _ in upstream.parameters())
        self.upstream = upstream if config.tune == "full" and has_parameters else None
        self._held = [upstream]  # in a list, so that a frozen one is no submodule
        self.backbone_runs = config.tune in BACKBONE_RUNS and has_parameters
        expert: Any = upstream
        self.stride = int(expert.get_downsample_rates("hidden_states"))
        self.layers, self.dim = _shape(upstream)
        if config.head_stride % self.stride and config.head_stride > self.stride:
            raise SslbenchError(
                f"finetune: head_stride {config.head_stride} is no multiple of the upstream's {self.stride}"
            )
        self.stack = max(1, config.head_stride // self.stride)
        ladder = None
        if config.tune == "ladder":
            ladder = Ladder(self.layers, self.dim, config.peft.ladder_dim, config.peft.kernel)
        self.featurizer = WeightedSum(self.layers, self.dim, config.normalise, ladder)
        self.head = Head(self.dim, classes, self.stack, config)
        self.tuning = make_tuning(config.tune, upstream, config.peft, config.steps)
        self.spans: SpanMasker | None = None
        if config.span_mask_prob > 0 and has_parameters:  # filterbanks have no mask embedding
            self.spans = SpanMasker(upstream, config.span_mask_prob, config.span_mask_ms)

    @property
    def any_upstream(self) -> nn.Module:
        """The upstream, tuned or frozen."""
        return self._held[0]

    def frames(self, samples: int) -> int:
        """Output frames of a clip of so many samples."""
        return math.ceil(math.ceil(samples / self.stride) / self.stack)

    def states(self, audio: torch.Tensor, audio_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every layer of the upstream.

        Args:
            audio: (B, T) float32 at 16 kHz.
            audio_lens: (B,) samples.

        Returns:
            (B, F, L, D), zero beyond each clip's frames, and (B,) those frames.
        """
        wavs = [wav[:length] for wav, length in zip(audio, audio_lens.tolist(), strict=True)]
        self.tuning.use_lens(audio_lens)
        if self.spans is not None:
            self.spans.use_lens(audio_lens if self.training else None)
        hidden = self.any_upstream(wavs)["hidden_states"]
        states = torch.stack(list(hidden), dim=2)  # (B, F, L, D)
        lens = torch.div(audio_lens + self.stride - 1, self.stride, rounding_mode="floor").to(states.device)
        lens = lens.clamp(max=states.shape[1])
        return states * length_mask(lens, states.shape[1])[:, :, None, None], lens

    def encode(
        self, states: torch.Tensor, lens: torch.Tensor, augment: Augment | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The head's frames (B, F', H) and their numbers (B,) from `states`' (B, F, L, D) and (B,)."""
        return self.head.encode(self._features(states, lens, augment), lens)

    def loss(
        self,
        states: torch.Tensor,
        lens: torch.Tensor,
        targets: list[list[int]],
        augment: Augment | None = None,
        warm: float = 1.0,
    ) -> LossOutput:
        """The head's loss (see `Head.loss`) of `states`' output, and the tuning's penalty."""
        found = self.head.loss(self._features(states, lens, augment), lens, targets, warm)
        penalty = self.tuning.penalty()
        if penalty is not None:
            found.loss_sum = found.loss_sum + penalty * found.frames
        return found

    def _features(self, states: torch.Tensor, lens: torch.Tensor, augment: Augment | None) -> torch.Tensor:
        features: torch.Tensor = self.featurizer(states, lens)
        return features if augment is None else augment(features, lens)

    def to_device(self, device: torch.device) -> Recognizer:
        """Move everything, the frozen upstream too."""
        self.any_upstream.to(device)
        return self.to(device)


@torch.no_grad()
def _shape(upstream: nn.Module) -> tuple[int, int]:
    """(layers, width) of an upstream's features, measured on half a second of noise."""
    was_training = upstream.training
    upstream.eval()
    noise = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    device = next((parameter.device for parameter in upstream.parameters()), torch.device("cpu"))
    hidden = upstream([noise.to(device)])["hidden_states"]
    upstream.train(was_training)
    widths = {state.shape[-1] for state in hidden}
    if len(widths) != 1:
        raise SslbenchError(f"finetune: the upstream's layers have different widths {sorted(widths)}")
    return len(hidden), widths.pop()
