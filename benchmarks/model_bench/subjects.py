"""The models that are compared, each behind the same two calls: a pretraining loss and an inference pass.

Layer drop is off everywhere: it takes a random amount of work out of a step. All other dropouts, masks and
training-only parts are as each model's authors train it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench import registry
from sslbench.nn.upstream import Upstream
from sslbench.profile.workload import Workload, training_loss
from sslbench.upstreams import build_model

OURS = (
    "hubert_orig_base",
    "hubert_k2ssl_base",
    "zipformer_base",
    "fast_hubert_base",
    "zipformer_fbank_base",
)
LARGE = ("hubert_k2ssl_large", "zipformer_large")
"""Ours too, only when asked for: a step takes three times as long."""
PEERS = ("torchaudio", "transformers")
ICEFALL = ("icefall_hubert", "icefall_zipformer")
REFERENCE = "torchaudio"
"""The named peer of every ratio: its `hubert_pretrain_base` with its loss, in fp32."""
NUM_UNITS = 504
MATMUL = "matmul"


@dataclass
class Subject:
    """One model and how it is run."""

    model: nn.Module
    loss: Callable[[Workload], Callable[[], Tensor]]
    """Prepares training mode and a batch; the result computes the loss per masked frame, or its stand-in."""
    infer: Callable[[Workload], Callable[[], object]]
    """Prepares eval mode and a batch; the result computes all hidden states."""


def absent(name: str) -> str | None:
    """Why a model cannot be measured here, or None."""
    if name in (*OURS, *LARGE) and name not in registry.upstreams():
        return "not registered in this version"
    return None


def build(name: str, device: torch.device, icefall: str | None, compiled: bool = False) -> Subject:
    """A model with random weights, the same ones each time.

    Args:
        name: one of `OURS`, `LARGE`, `PEERS` or `ICEFALL`.
        device: where it runs.
        icefall: checkout of icefall, for `ICEFALL`.
        compiled: run our models through `torch.compile`.
    """
    torch.manual_seed(0)
    if name == "torchaudio":
        return _torchaudio(device)
    if name == "transformers":
        return _transformers(device)
    if name in ICEFALL:
        from model_bench.icefall import build_icefall

        model = build_icefall(name, str(icefall)).to(device)
        return Subject(model, partial(_icefall_loss, model), partial(_icefall_infer, model))
    return _ours(name, device, compiled)


def waves(workload: Workload, device: torch.device) -> Tensor:
    """(B, T) audio of a workload."""
    return torch.stack(workload.wavs()).to(device)


def units(clips: int, frames: int, device: torch.device) -> Tensor:
    """(B, F) random labels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(500, (clips, frames), generator=generator).to(device)


def _frames(samples: int) -> int:
    """Frames of the wav2vec 2.0 CNN: 400 samples of context, 320 per frame."""
    return (samples - 400) // 320 + 1


def _ours(name: str, device: torch.device, compiled: bool) -> Subject:
    family = registry.upstreams()[name].family
    overrides = {"layerdrop": 0.0} if "hubert" in family else {}
    model = build_model(name, overrides).to(device)
    upstream = Upstream(model, "random", frozen=False)
    if compiled:
        model.compile()

    def infer(workload: Workload) -> Callable[[], object]:
        model.eval()
        wavs = [wav.to(device) for wav in workload.wavs()]
        return lambda: upstream(wavs)

    return Subject(model, lambda work: training_loss(upstream, work), infer)


def _torchaudio(device: torch.device) -> Subject:
    from torchaudio.models import hubert_pretrain_base

    model = hubert_pretrain_base(num_classes=NUM_UNITS, encoder_layer_drop=0.0).to(device)

    def loss(workload: Workload) -> Callable[[], Tensor]:
        model.train()
        audio = waves(workload, device)
        lens = torch.full((workload.clips,), audio.shape[1], device=device)
        labels = units(workload.clips, _frames(audio.shape[1]), device)

        def compute() -> Tensor:
            # The objective of torchaudio's own recipe: unmasked frames weigh 0, the feature penalty 10.
            masked, _, penalty = model(audio, labels, lens)
            total = F.cross_entropy(masked.float(), torch.zeros(len(masked), dtype=torch.long, device=device))
            return total + 10.0 * penalty

        return compute

    def infer(workload: Workload) -> Callable[[], object]:
        model.eval()
        audio = waves(workload, device)
        lens = torch.full((workload.clips,), audio.shape[1], device=device)
        return lambda: model.wav2vec2.extract_features(audio, lens)

    return Subject(model, loss, infer)


def _transformers(device: torch.device) -> Subject:
    from transformers import HubertConfig, HubertModel

    # fairseq's masks; the library's default masks a sixteenth of that, for fine-tuning.
    model: Any = HubertModel(HubertConfig(mask_time_prob=0.8, layerdrop=0.0)).to(device)

    def loss(workload: Workload) -> Callable[[], Tensor]:
        model.train()
        audio = waves(workload, device)
        # The library has no pretraining loss for HuBERT; this stand-in costs nothing.
        return lambda: model(audio).last_hidden_state.float().square().mean()

    def infer(workload: Workload) -> Callable[[], object]:
        model.eval()
        audio = waves(workload, device)
        return lambda: model(audio, output_hidden_states=True)

    return Subject(model, loss, infer)


def _icefall_loss(model: Any, workload: Workload) -> Callable[[], Tensor]:
    device = next(model.parameters()).device
    model.train()
    audio = waves(workload, device)
    padding = torch.zeros_like(audio, dtype=torch.bool)
    labels = [units(workload.clips, _frames(audio.shape[1]), device)]

    def compute() -> Tensor:
        total, frames, *_ = model(source=audio, target_list=labels, padding_mask=padding)
        mean: Tensor = total / max(int(frames), 1)
        return mean

    return compute


def _icefall_infer(model: Any, workload: Workload) -> Callable[[], object]:
    device = next(model.parameters()).device
    model.eval()
    audio = waves(workload, device)
    padding = torch.zeros_like(audio, dtype=torch.bool)
    return lambda: model.extract_features(source=audio, padding_mask=padding)
