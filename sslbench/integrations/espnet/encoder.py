"""Our encoders as ESPnet encoders: `encoder: NAME` in the YAML of ESPnet's ASR and SSL tasks.

ESPnet's encoder stands behind its own front end, normalisation and masking, and is built as
`cls(input_size=..., **encoder_conf)` (espnet2/tasks/asr.py, espnet2/tasks/ssl.py, release 202511).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from espnet.nets.pytorch_backend.nets_utils import make_pad_mask
from espnet.nets.pytorch_backend.transformer.subsampling import (
    Conv2dSubsampling,
    Conv2dSubsampling2,
    TooShortUttError,
    check_short_utt,
)
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.train.class_choices import ClassChoices
from torch import Tensor, nn

from sslbench import config as configs
from sslbench import registry
from sslbench.errors import SslbenchError
from sslbench.io import read_yaml
from sslbench.nn.masked_model import MaskedUnitModel
from sslbench.upstreams import model_class

SUBSAMPLING = {"conv2d": (Conv2dSubsampling, 2), "conv2d2": (Conv2dSubsampling2, 1)}
"""ESPnet's class, and the stride of its second 3 x 3 convolution; the first one's is 2."""


class EspnetEncoder(AbsEncoder):
    """The encoder of one upstream family on ESPnet's frames; random weights.

    Its module `model` is the family's model without front end and heads, so the encoder's own state-dict keys
    stand below `model.`. Schedules (layer skips, dropout) follow the count of training batches, which is
    part of the state, so a resumed run goes on where it stopped. Since layers are skipped at random, training
    on several GPUs needs `unused_parameters: true`.
    """

    family: str
    """Set in the subclasses that `register` makes."""
    preset: Path | None
    """YAML of the preset; None: the family's defaults."""

    def __init__(
        self,
        input_size: int,
        input_layer: Literal["conv2d", "conv2d2"] | None = None,
        input_layer_dim: int = 256,
        batch_count_per_update: float = 1.0,
        **settings: Any,
    ) -> None:
        """Build the encoder.

        Args:
            input_size: width of ESPnet's frames.
            input_layer: ESPnet's convolution that keeps a fourth ("conv2d") or half ("conv2d2") of the
                frames: filterbanks come at 100 Hz, our encoders expect about 50 Hz. None for the SSL task,
                whose masks and labels are laid over the encoder's input.
            input_layer_dim: its channels.
            batch_count_per_update: what one training batch adds to the count that schedules follow
                (k2SSL: seconds of audio in it, over 600).
            **settings: of the family's configuration, over those of the preset.

        Raises:
            SslbenchError: settings that the family does not have.
        """
        super().__init__()
        if input_layer is not None and input_layer not in SUBSAMPLING:
            raise SslbenchError(
                f"encoder_conf: input_layer {input_layer!r} is unknown; null, {', '.join(SUBSAMPLING)}"
            )
        self.input_layer: nn.Module | None = None
        if input_layer is not None:
            # no positions are added: these encoders have their own
            made, self.second_stride = SUBSAMPLING[input_layer]
            self.input_layer = made(input_size, input_layer_dim, 0.0, nn.Identity())
            input_size = input_layer_dim
        self.model = _bare_model(self.family, self.preset, input_size, settings)
        self.batch_count_per_update = batch_count_per_update
        self.batches: Tensor
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self._output_size = _output_width(self.model, input_size)

    def output_size(self) -> int:
        """Width of the output."""
        return self._output_size

    def forward(
        self,
        xs_pad: Tensor,
        ilens: Tensor,
        prev_states: Tensor | None = None,
        masks: Tensor | None = None,
        return_all_hs: bool = False,
        **others: Any,
    ) -> tuple[Any, Tensor, None]:
        """Encode padded frames.

        Args:
            xs_pad: (B, F, input_size).
            ilens: (B,) valid frames.
            prev_states: part of ESPnet's convention; not used.
            masks: (B, F), True beyond the end; the same as `ilens`, so not used.
            return_all_hs: as the SSL task asks: also every layer's frames, filled up to one width.
            **others: of ESPnet's other encoders; not used.

        Returns:
            (B, F', D), or that and the list of all states; (B,) valid frames; None.
        """
        x, lens = xs_pad, ilens
        if self.input_layer is not None:
            short, least = check_short_utt(self.input_layer, x.size(1))
            if short:
                raise TooShortUttError(f"{x.size(1)} frames are too few to subsample", x.size(1), least)
            x, _ = self.input_layer(x, None)
            # ESPnet's own mask counts frames that were computed from padding
            lens = (((lens - 1) // 2 - 3) // self.second_stride + 1).clamp(min=1)
        if self.training:
            self.batches += 1
            self.model.set_batch_count(float(self.batches) * self.batch_count_per_update)
        beyond = make_pad_mask(lens, maxlen=x.size(1)).to(x.device)[..., None]
        states = [state.masked_fill(beyond, 0.0) for state in self.model.encode(x, lens.to(x.device))]
        if not return_all_hs:
            return states[-1], lens, None
        width = self._output_size
        return (states[-1], [F.pad(state, (0, width - state.shape[-1])) for state in states[1:]]), lens, None


def register(*choices: ClassChoices) -> list[str]:
    """Offer every upstream with an encoder of its own to ESPnet tasks.

    Args:
        choices: a task's `encoder_choices`; names that it has already stay what they are.

    Returns:
        The names, sorted.
    """
    names = []
    for entry in registry.upstreams():
        if entry.source != "sslbench" or not _is_encoder(entry.family):
            continue
        made = type(
            f"Espnet_{entry.name}", (EspnetEncoder,), {"family": entry.family, "preset": entry.config}
        )
        for choice in choices:
            choice.classes.setdefault(entry.name.lower(), made)
        names.append(entry.name)
    return names


def _is_encoder(family: str) -> bool:
    try:
        return issubclass(model_class(family), MaskedUnitModel)
    except SslbenchError:
        return False


def _bare_model(
    family: str, preset: Path | None, input_size: int, settings: Mapping[str, Any]
) -> MaskedUnitModel:
    """The family's model on frames of `input_size` channels, without front end, mask embedding and heads."""
    cls = model_class(family)
    values = dict(read_yaml(preset) or {}) if preset else {}
    # a one-sample convolution has the channels that are asked for; it is taken out again below
    ours = {"front_end": "waveform", "conv_layers": [[input_size, 1, 1]], "predict_layers": []}
    values |= {**settings, **ours, "mask_with": "zeros"}
    model = cls(configs.build(cls.config_class, values, where="encoder_conf"))
    if not isinstance(model, MaskedUnitModel):
        raise SslbenchError(f"{family}: has no encoder that can stand alone")
    del model.feature_extractor
    return model


def _output_width(model: MaskedUnitModel, input_size: int) -> int:
    """Of the last state, which families configure each in their own way."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        states = model.encode(torch.zeros(1, 16, input_size), torch.tensor([16]))
    model.train(was_training)
    return int(states[-1].shape[-1])
