"""The upstream contract: a speech encoder that s3prl, ESPnet and every evaluation here can use.

s3prl's expert contract made strict: exactly ceil(T/stride) frames, equal widths and frame counts in
every layer, frozen means frozen, and a clip's frames do not depend on the batch that it is padded in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from sslbench import config as configs
from sslbench.checkpoint import UpstreamCheckpoint, load_strict
from sslbench.errors import SslbenchError


@dataclass
class PretrainBatch:
    """What a pretraining model's forward receives."""

    audio: torch.Tensor
    """(B, T) float32 at 16 kHz, zero beyond each clip's length."""
    audio_lens: torch.Tensor
    """(B,) int64, valid samples of each clip; best on the CPU, as the labels: nobody waits there."""
    labels: torch.Tensor
    """(B, F) int64 unit of each frame, -1 beyond the end."""
    ids: list[str]
    """Cut ids, for error messages and the utterance log."""


@dataclass
class LossOutput:
    """What a pretraining model's forward returns; the trainer owns every normalisation."""

    loss_sum: torch.Tensor
    """Scalar: the loss summed over the frames that count."""
    frames: torch.Tensor
    """Scalar int64: how many frames that was."""
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)
    """Sums over the same frames, detached (for example `correct`); the trainer divides by `frames`."""


class SSLModel(nn.Module):
    """A pretrainable encoder. Families subclass it in `upstream/<family>/model.py`."""

    config_class: ClassVar[type[Any]]
    """Dataclass of the family's settings; the model is built as `cls(config)`."""
    family: ClassVar[str]
    """The folder's name under `upstream/`."""
    stride: int = 320
    """Samples per output frame."""
    config: Any

    def forward(self, batch: PretrainBatch) -> LossOutput:
        """The pretraining loss of one batch."""
        raise NotImplementedError

    def set_batch_count(self, batch_count: float) -> None:
        """Tell modules with training schedules how far training is, in duration-adjusted batches."""

    def training_state(self) -> dict[str, torch.Tensor]:
        """What a resumed run needs beside weights and global generators: the state of `mask_generator`,
        where the model has one, and whatever a family adds."""
        generator = getattr(self, "mask_generator", None)
        return {} if generator is None else {"mask_generator": generator.get_state()}

    def load_training_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore `training_state`."""
        if "mask_generator" in state:
            generator: Any = self.mask_generator
            generator.set_state(state["mask_generator"])

    def fit_inputs(self, clips: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> int:
        """Fit what normalises the input (for example a mean per filterbank bin) before the first update.

        Args:
            clips: batches of (B, T) audio and (B,) lengths of the training data; read only where needed.

        Returns:
            How many frames were seen; 0 for a model without such statistics.
        """
        return 0

    def hidden_states(self, audio: torch.Tensor, audio_lens: torch.Tensor) -> list[torch.Tensor]:
        """Every layer's frames of padded clips, unmasked.

        Args:
            audio: (B, T) float32, zero beyond each length; T may be as short as one sample.
            audio_lens: (B,) int64.

        Returns:
            A constant number of (B, ceil(T/stride), D) tensors; frames beyond ceil(len/stride) are zero.
        """
        raise NotImplementedError


class Upstream(nn.Module):
    """A model behind s3prl's expert interface; frozen unless asked otherwise.

    Attributes:
        weights: "trained", "imported", "random" or "none" (no parameters), for the result row.
        weights_sha256: of the checkpoint's weights file; None without one.
    """

    def __init__(
        self, model: SSLModel, weights: str, weights_sha256: str | None = None, frozen: bool = True
    ) -> None:
        super().__init__()
        self.model = model
        self.weights = weights
        self.weights_sha256 = weights_sha256
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def train(self, mode: bool = True) -> Upstream:
        """As `nn.Module.train`, but a frozen upstream stays in eval mode: a host model's `train()` must
        not switch on its dropout, layer skips or schedules."""
        return super().train(mode and not self.frozen)

    def get_downsample_rates(self, key: str = "hidden_states") -> int:
        """Samples per frame (the same for every key)."""
        return self.model.stride

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        """Features of a list of (T,) float32 clips at 16 kHz.

        Returns:
            `hidden_states`: list of (B, ceil(max T / stride), D); `last_hidden_state`: its last item.
        """
        if not wavs or min(len(wav) for wav in wavs) == 0:
            raise SslbenchError("an upstream needs at least one clip, and no clip may be empty")
        audio = pad_sequence([wav.float() for wav in wavs], batch_first=True)  # (B, T)
        lens = torch.tensor([len(wav) for wav in wavs], device=audio.device)
        states = self.model.hidden_states(audio, lens)
        return {"hidden_states": states, "last_hidden_state": states[-1]}


def weights_of(upstream: nn.Module) -> tuple[str, str | None]:
    """(kind, sha256) of an upstream's weights; those of which nothing is said count as "random"."""
    sha256 = getattr(upstream, "weights_sha256", None)
    return str(getattr(upstream, "weights", "random")), None if sha256 is None else str(sha256)


def upstream_entry(model_class: type[SSLModel], preset: Path) -> Callable[..., Upstream]:
    """Make the function that s3prl, ESPnet and the registry call for one upstream name.

    Args:
        model_class: the family.
        preset: YAML with the settings that differ from the family's defaults, used without a checkpoint.
    """

    def entry(
        ckpt: Path | str | None = None,
        model_config: Path | str | None = None,
        refresh: bool = False,
        frozen: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> Upstream:
        """An upstream from a checkpoint folder, or with random weights (said loudly).

        Args:
            ckpt: folder written by `sslbench export` or `convert`, with its own configuration.
            model_config: YAML that replaces the preset; with `ckpt`, settings that go before its own, such
                as `features` or `compat`; the weights must still fit.
            refresh: part of s3prl's calling convention; nothing is downloaded here.
            frozen: False for fine-tuning.
            seed: of the random weights.
        """
        if ckpt:
            checkpoint = UpstreamCheckpoint.load(ckpt)
            if checkpoint.family != model_class.family:
                raise SslbenchError(
                    f"{ckpt}: holds a {checkpoint.family!r} model, not {model_class.family!r}"
                )
            values, where = checkpoint.config, f"{ckpt}/config.yaml"
            if model_config:
                values = configs.merged(values, configs.read_values(model_config))
                where = f"{model_config} over {where}"
            model = model_class(configs.build(model_class.config_class, values, where))
            load_strict(model, checkpoint.state, where=str(ckpt))
            return Upstream(model, checkpoint.weights, checkpoint.weights_sha256, frozen)
        settings = configs.load(model_class.config_class, model_config or preset)
        warnings.warn(f"{preset.stem}: no checkpoint given, so the weights are RANDOM", stacklevel=2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Upstream(model_class(settings), "random", None, frozen)

    entry.__name__ = preset.stem
    return entry
