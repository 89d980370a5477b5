"""What encoders trained on masked units share: front end, masking, heads and loss."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.device import send
from sslbench.errors import SslbenchError
from sslbench.nn.fbank import FbankFrontend
from sslbench.nn.frontend import WaveformCNN, length_mask, normalise_waveform, scale_gradient
from sslbench.nn.masked_config import MaskedUnitConfig
from sslbench.nn.masking import span_mask
from sslbench.nn.objective import MaskedCosineLoss, MaskedUnitLoss, feature_penalty, masked_frames
from sslbench.nn.upstream import LossOutput, PretrainBatch, SSLModel

LABEL_SAMPLES = 320
"""Units come at 50 Hz, whatever the model's own rate."""


class MaskedUnitModel(SSLModel):
    """Front end, projection, span masks and masked-unit heads; a family adds the encoder between.

    A family's `__init__` makes its encoder and then calls `add_heads`. Module names are those of fairseq's
    and k2SSL's models, so that their state dicts fit: with one head, `final_proj` is the head; with several
    (intermediate-layer supervision) it is a list, as in Fast-HuBERT.

    Attributes:
        mask_generator: source of the training masks, on the CPU; part of `training_state`.
    """

    config: MaskedUnitConfig
    feature_extractor: WaveformCNN | FbankFrontend
    final_proj: nn.Module

    def __init__(self, config: MaskedUnitConfig, dim: int) -> None:
        """Build all but the encoder and the heads.

        Args:
            config: the family's settings.
            dim: width of the encoder's input.
        """
        super().__init__()
        self.config = config
        self.compat = config.compat == "k2ssl"
        if config.front_end == "fbank":
            self.feature_extractor = FbankFrontend(config.fbank)
            self.stride = config.fbank.stride
        else:
            self.feature_extractor = WaveformCNN(
                config.conv_layers, config.extractor_mode, config.conv_bias, leak_padding=self.compat
            )
            self.stride = prod(step for _, _, step in config.conv_layers)
        channels = self.feature_extractor.channels
        self.layer_norm = nn.LayerNorm(channels) if config.input_norm else None
        self.post_extract_proj = None if channels == dim else nn.Linear(channels, dim)
        self.mask_emb = None
        if config.mask_with == "embedding":
            self.mask_emb = nn.Parameter(torch.empty(dim).uniform_())
        self.mask_generator = torch.Generator().manual_seed(config.mask_seed)

    def add_heads(self, widths: list[int]) -> None:
        """Make a head for every state in `predict_layers`.

        Args:
            widths: of the states that `encode` returns.

        Raises:
            SslbenchError: a layer that the encoder does not have.
        """
        config = self.config
        outside = [layer for layer in config.predict_layers if not -len(widths) <= layer < len(widths)]
        if outside:
            raise SslbenchError(
                f"{self.family}: predict_layers {outside} do not exist; states go from 0 to {len(widths) - 1}"
            )
        heads: list[nn.Module] = []
        for layer in config.predict_layers:
            if config.objective == "ce":
                heads.append(MaskedUnitLoss(widths[layer], config.num_units, config.temperature))
            else:
                heads.append(MaskedCosineLoss(widths[layer], config.final_dim, config.temperature))
        self.final_proj = heads[0] if len(heads) == 1 else nn.ModuleList(heads)
        if config.objective == "nce" and heads:  # every head has its own unit embeddings, one below the other
            embeddings = torch.empty(config.num_units * len(heads), config.final_dim).uniform_()
            self.label_embs_concat = nn.Parameter(embeddings)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `nn.Module.compile`, but for the waveform CNN, which is written by hand for both passes."""
        front = self.feature_extractor
        # Here and not as a decorator, for that loads the compiler (100 MB) into every process.
        if isinstance(front, WaveformCNN):
            front.forward = torch.compiler.disable(front.forward)  # type: ignore[method-assign]
        super().compile(*args, **kwargs)

    def encode(self, features: Tensor, frame_lens: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """The encoder's states of front-end frames: its input, every layer or stack, its output last.

        Args:
            features: (B, F, C) from `features`.
            frame_lens: (B,) valid frames.
            mask: (B, F) bool, True where frames are masked.
        """
        raise NotImplementedError

    def fit_inputs(self, clips: Iterable[tuple[Tensor, Tensor]]) -> int:
        """As `SSLModel.fit_inputs`: the fbank front end's global mean and variance."""
        return self.feature_extractor.fit(clips) if isinstance(self.feature_extractor, FbankFrontend) else 0

    def forward(self, batch: PretrainBatch) -> LossOutput:
        """Masked-unit loss of a batch, with masks from `mask_generator`.

        In eval mode the masks depend on the batch and `mask_seed` alone, so that a development loss is
        the same whenever it is computed.
        """
        # What depends on lengths and labels is decided on the CPU: nothing here waits for the device.
        features, frame_lens = self.features(batch.audio, batch.audio_lens.cpu())
        labels = at_rate(batch.labels.cpu(), self.stride)
        generator = self.mask_generator
        if not self.training:
            generator = torch.Generator().manual_seed(self.config.mask_seed)
        # Only labelled frames can be masked: labels may end a frame early.
        labelled = (labels[:, : features.shape[1]] >= 0).sum(1)
        lens = torch.minimum(frame_lens, labelled)
        mask = span_mask(lens, features.shape[1], self.config.mask_prob, self.config.span_frames, generator)
        return self.masked_loss(features, frame_lens, labels, mask)

    def masked_loss(self, features: Tensor, frame_lens: Tensor, labels: Tensor, mask: Tensor) -> LossOutput:
        """Loss for given masks.

        Args:
            features: (B, F, C) as `features` returns them.
            frame_lens: (B,) valid frames; like labels and mask, on the CPU.
            labels: (B, any number of frames) int64 units at the model's frame rate, -1 where there is none.
            mask: (B, F) bool.

        Returns:
            The mean over the heads of their losses; with several, each head's own in the metrics
            `loss_layerN` and `correct_layerN`.

        Raises:
            SslbenchError: a label outside the heads' classes.
        """
        total = features.shape[1]
        labels = F.pad(labels[:, :total], (0, max(0, total - labels.shape[1])), value=-1)
        if int(labels.max()) >= self.config.num_units:
            raise SslbenchError(
                f"{self.family}: label {int(labels.max())} does not fit num_units {self.config.num_units}; "
                "set num_units to the number of k-means clusters"
            )
        valid = length_mask(frame_lens, total)
        states = self.encode(features, frame_lens, mask)
        loss, metrics, count = self.predict(states, labels, mask & valid)
        if self.config.feature_penalty:
            penalty = feature_penalty(features, None if self.compat else send(valid, features.device))
            loss = loss + self.config.feature_penalty * penalty * count
            metrics["feature_penalty"] = penalty.detach() * count
        return LossOutput(loss, count, metrics)

    def predict(
        self, states: list[Tensor], labels: Tensor, mask: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """All heads' mean loss over the masked frames, metrics, and how many frames there are."""
        if not self.config.predict_layers:
            raise SslbenchError(
                f"{self.family}: this encoder was imported without its head, so it cannot be pretrained; "
                "probe it, or fine-tune it"
            )
        several = isinstance(self.final_proj, nn.ModuleList)
        heads: Iterable[nn.Module] = self.final_proj if several else [self.final_proj]  # type: ignore[assignment]
        layers = [layer % len(states) for layer in self.config.predict_layers]
        index, device = masked_frames(labels, mask), states[0].device
        count = torch.full((), len(index), device=device)
        index, targets = send(index, device), send(labels.flatten()[index], device)
        losses, metrics = [], {}
        for number, (layer, head) in enumerate(zip(layers, heads, strict=True)):
            frames = states[layer].flatten(0, 1)[index]  # (N, D)
            loss, correct = head(frames, targets, *self._embeddings(number))
            losses.append(loss)
            metrics["correct"] = correct
            if several:
                metrics |= {f"loss_layer{layer}": loss.detach(), f"correct_layer{layer}": correct}
        return sum(losses[1:], losses[0]) / len(losses), metrics, count

    def _embeddings(self, number: int) -> list[Tensor]:
        """The unit embeddings of head `number`, where heads compare with embeddings."""
        if self.config.objective == "ce":
            return []
        return [self.label_embs_concat.split(self.config.num_units)[number]]

    def features(self, audio: Tensor, audio_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Front-end frames before their LayerNorm, (B, F, C), and valid frames (B,)."""
        if self.config.normalize and self.config.front_end == "waveform":
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
        x: Tensor = features if self.layer_norm is None else self.layer_norm(features)
        mask = None if mask is None else send(mask[..., None], x.device)
        if mask is not None and self.mask_emb is None:
            x = x.masked_fill(mask, 0.0)
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        x = F.dropout(x, self.config.dropout_input, self.training)
        if mask is not None and self.mask_emb is not None:
            x = torch.where(mask, self.mask_emb.to(x.dtype), x)
        return x


def at_rate(labels: Tensor, stride: int) -> Tensor:
    """Units at 50 Hz, (B, F), brought to one per `stride` samples: every second one at 25 Hz (Fast-HuBERT's
    `feat2tar_ratio`), each twice at 100 Hz.

    Raises:
        SslbenchError: the rates do not fit.
    """
    if stride % LABEL_SAMPLES == 0:
        return labels[:, :: stride // LABEL_SAMPLES]
    if LABEL_SAMPLES % stride:
        raise SslbenchError(f"model: frames of {stride} samples do not fit units of {LABEL_SAMPLES}")
    return labels.repeat_interleave(LABEL_SAMPLES // stride, dim=1)
