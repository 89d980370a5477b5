"""The recognizer: weighted sum over an upstream's layers, projection, head, CTC."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.vocab import BLANK
from sslbench.nn.upstream import LossOutput


class WeightedSum(nn.Module):
    """Softmax-weighted sum of layers, as in SUPERB (Yang et al., Interspeech 2021)."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, layers: int, dim: int, normalise: str) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))
        self.normalise = normalise
        self.register_buffer("mean", torch.zeros(layers, dim))
        self.register_buffer("scale", torch.ones(layers, dim))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(B, F, L, D) -> (B, F, D)."""
        if self.normalise == "layer":
            states = F.layer_norm(states, states.shape[-1:])
        elif self.normalise == "channel":
            states = (states - self.mean) * self.scale
        return torch.einsum("bfld,l->bfd", states, self.weights.softmax(0).to(states.dtype))

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Measure every channel's mean and variance.

        Args:
            batches: (states (B, F, L, D), valid frames (B,)) pairs.
        """
        count, total, squares = 0, torch.zeros_like(self.mean).double(), torch.zeros_like(self.mean).double()
        for states, lens in batches:
            valid = torch.cat([state[:length] for state, length in zip(states, lens.tolist(), strict=True)])
            count += len(valid)
            total += valid.sum(0).double()
            squares += valid.double().square().sum(0)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        # a channel that never changes stays as it is instead of being blown up
        self.scale.copy_(torch.where(deviation > 1e-5, 1 / deviation.clamp(min=1e-5), 1.0))


class CTCHead(nn.Module):
    """Stacks frames up to the head's stride, projects, and scores the classes of every frame."""

    def __init__(self, input_dim: int, classes: int, stack: int, config: FinetuneConfig) -> None:
        super().__init__()
        self.stack = stack
        width = config.projection_dim or input_dim * stack
        self.projection: nn.Module = (
            nn.Linear(input_dim * stack, width) if config.projection_dim else nn.Identity()
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blstm: nn.LSTM | None = None
        if config.head == "blstm":
            between = config.dropout if config.blstm_layers > 1 else 0.0
            self.blstm = nn.LSTM(
                width,
                config.blstm_dim,
                config.blstm_layers,
                batch_first=True,
                bidirectional=True,
                dropout=between,
            )
            width = 2 * config.blstm_dim
        self.output = nn.Linear(width, classes)

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class scores.

        Args:
            features: (B, F, D), zero beyond each length.
            lens: (B,) valid frames.

        Returns:
            log-probabilities (B, ceil(F / stack), classes) in fp32, and the valid frames of each clip.
        """
        hidden = self.dropout(self.projection(stack_frames(features, self.stack)))
        lens = -(-lens // self.stack)
        if self.blstm is not None:
            packed = pack_padded_sequence(hidden, lens.cpu(), batch_first=True, enforce_sorted=False)
            hidden, _ = pad_packed_sequence(
                self.blstm(packed)[0], batch_first=True, total_length=hidden.shape[1]
            )
            hidden = self.dropout(hidden)
        return self.output(hidden).float().log_softmax(-1), lens


def stack_frames(features: torch.Tensor, stack: int) -> torch.Tensor:
    """Concatenate neighbours: (B, F, D) -> (B, ceil(F / stack), stack · D), zero-padded at the end."""
    batch, frames, dim = features.shape
    features = F.pad(features, (0, 0, 0, -frames % stack))
    return features.reshape(batch, -1, stack * dim)


def frame_mask(lens: torch.Tensor, frames: int) -> torch.Tensor:
    """(B, frames) bool: which frames are within the lengths (B,)."""
    return torch.arange(frames, device=lens.device) < lens[:, None]


class Recognizer(nn.Module):
    """An upstream, which may be frozen, with a CTC head.

    A frozen upstream is not part of `state_dict`: its own checkpoint holds its weights.
    """

    def __init__(self, upstream: nn.Module, classes: int, config: FinetuneConfig) -> None:
        super().__init__()
        self.tune_upstream = config.tune == "full" and any(True for _ in upstream.parameters())
        self.upstream = upstream if self.tune_upstream else None
        self._held = [upstream]  # in a list, so that a frozen one is no submodule
        expert: Any = upstream
        self.stride = int(expert.get_downsample_rates("hidden_states"))
        self.layers, self.dim = _shape(upstream)
        if config.head_stride % self.stride and config.head_stride > self.stride:
            raise SslbenchError(
                f"finetune: head_stride {config.head_stride} is no multiple of the upstream's {self.stride}"
            )
        self.stack = max(1, config.head_stride // self.stride)
        self.featurizer = WeightedSum(self.layers, self.dim, config.normalise)
        self.head = CTCHead(self.dim, classes, self.stack, config)

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
        hidden = self.any_upstream(wavs)["hidden_states"]
        states = torch.stack(list(hidden), dim=2)  # (B, F, L, D)
        lens = torch.div(audio_lens + self.stride - 1, self.stride, rounding_mode="floor").to(states.device)
        lens = lens.clamp(max=states.shape[1])
        return states * frame_mask(lens, states.shape[1])[:, :, None, None], lens

    def log_probs(
        self, states: torch.Tensor, lens: torch.Tensor, augment: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Class log-probabilities (B, F', classes) and frames (B,) from `states`' (B, F, L, D) and (B,)."""
        features = self.featurizer(states)
        features = features * frame_mask(lens, features.shape[1])[:, :, None]
        if augment is not None:
            features = augment(features, lens)
        log_probs, out_lens = self.head(features, lens)
        return log_probs, out_lens

    def to_device(self, device: torch.device) -> Recognizer:
        """Move everything, the frozen upstream too."""
        self.any_upstream.to(device)
        return self.to(device)


def ctc_loss(log_probs: torch.Tensor, lens: torch.Tensor, targets: list[list[int]]) -> LossOutput:
    """CTC (Graves et al., ICML 2006), summed over a batch.

    Args:
        log_probs: (B, F, classes) fp32.
        lens: (B,) valid frames.
        targets: classes of each clip; may be empty.

    Returns:
        The summed loss; `frames` counts target symbols and one per clip, so that empty ones weigh too.
    """
    flat = torch.tensor([number for target in targets for number in target], dtype=torch.long)
    target_lens = torch.tensor([len(target) for target in targets])
    loss = F.ctc_loss(
        log_probs.transpose(0, 1),
        flat.to(log_probs.device),
        lens.cpu(),
        target_lens,
        BLANK,
        "sum",
        zero_infinity=True,
    )
    return LossOutput(loss, target_lens.sum() + len(targets))


def greedy(log_probs: torch.Tensor, lens: torch.Tensor) -> list[list[int]]:
    """Best class of each frame, repeats joined, blanks dropped."""
    best = log_probs.argmax(-1).cpu()  # (B, F)
    decoded = []
    for row, length in zip(best, lens.tolist(), strict=True):
        joined = torch.unique_consecutive(row[:length])
        decoded.append(joined[joined != BLANK].tolist())
    return decoded


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
