"""HuBERT, wav2vec 2.0 and WavLM from transformers with random weights, where theirs cannot be fetched.

They cost what the published models cost, so speed and memory can be measured offline; their quality
means nothing, and rows say `random`. Settings: the `config.json` files of facebook/hubert-*,
facebook/wav2vec2-* and microsoft/wavlm-* on the Hugging Face hub, as differences from the defaults.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
_BIAS = {"conv_bias": True}

# (pattern of s3prl's names, transformers' model, differences from its defaults)
_KNOWN: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (r"hubert(_base)?", "Hubert", {}),
    (r"hubert_large(_ll60k)?", "Hubert", {**_LARGE, **_LAYER_NORM, **_BIAS}),
    (r"wav2vec2(_base_960)?", "Wav2Vec2", {}),
    (r"wav2vec2_large_960", "Wav2Vec2", _LARGE),
    (r"wav2vec2_large_(ll60k|lv60_cv_swbd_fsh)", "Wav2Vec2", {**_LARGE, **_LAYER_NORM, **_BIAS}),
    (r"wavlm(_base|_base_plus)?", "WavLM", {}),
    (r"wavlm_large", "WavLM", {**_LARGE, **_LAYER_NORM}),
)


def stand_in(name: str, seed: int = 0) -> nn.Module | None:
    """The architecture behind an s3prl name with random weights; None when it is not one of these.

    Raises:
        ImportError: transformers is not installed.
    """
    for pattern, model, differences in _KNOWN:
        if re.fullmatch(pattern, name):
            return TransformersExpert(model, differences, seed)
    return None


class TransformersExpert(nn.Module):
    """A transformers speech encoder behind s3prl's expert interface."""

    def __init__(self, model: str, differences: dict[str, Any], seed: int) -> None:
        super().__init__()
        import transformers

        config = getattr(transformers, f"{model}Config")(
            **differences, layerdrop=0.0, apply_spec_augment=False
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = getattr(transformers, f"{model}Model")(config)

    def get_downsample_rates(self, key: str = "hidden_states") -> int:
        """320 samples: the product of the seven strides."""
        return 320

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        """All layers' frames of a list of (T,) clips; padding is masked as transformers does it."""
        audio = pad_sequence(wavs, batch_first=True)  # (B, T)
        lens = torch.tensor([len(wav) for wav in wavs], device=audio.device)
        mask = (torch.arange(audio.shape[1], device=audio.device) < lens[:, None]).long()
        states = self.model(audio, attention_mask=mask, output_hidden_states=True).hidden_states
        return {"hidden_states": list(states), "last_hidden_state": states[-1]}
