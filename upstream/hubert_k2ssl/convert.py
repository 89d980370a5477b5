"""HuBERT checkpoints of fairseq, s3prl, k2SSL and transformers, and back to transformers.

Names: fairseq `models/hubert/hubert.py` (s3prl keeps them), icefall `egs/librispeech/SSL/hubert`,
transformers `modeling_hubert.py`. Ours are k2SSL's; fairseq's differ in the weight norm of the
positional convolution alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sslbench.convert.arguments import cnn_from_weights, count, masked_unit_settings, require
from sslbench.convert.family import Converter, Imported
from sslbench.convert.source import Source
from sslbench.errors import SslbenchError
from sslbench.upstream.hubert_k2ssl.hf_format import from_hf, to_hf

_POSITION = "encoder.pos_conv.0"
_WEIGHT_NORM = {
    f"{_POSITION}.weight_g": f"{_POSITION}.parametrizations.weight.original0",
    f"{_POSITION}.weight_v": f"{_POSITION}.parametrizations.weight.original1",
}
_SAME = {
    "encoder_layers": "layers",
    "encoder_embed_dim": "dim",
    "encoder_ffn_embed_dim": "ffn_dim",
    "encoder_attention_heads": "heads",
    "layer_norm_first": "layer_norm_first",
    "conv_pos": "conv_pos",
    "conv_pos_groups": "conv_pos_groups",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "encoder_layerdrop": "layerdrop",
}
_TELLING = ("heads", "layer_norm_first", "normalize")
"""Settings that change the features and that weights do not show."""
_OTHER_FAMILIES = ("quantizer.", "grep_linear", "w2v_encoder.", "conv_module")


def recognises(source: Source) -> bool:
    """Whether the weights are a HuBERT's: a wav2vec 2.0 has a quantizer, a WavLM gated positions."""
    if source.format == "hf":
        return source.settings.get("model_type") == "hubert"
    keys = set(source.state)
    position = keys & {*_WEIGHT_NORM, *_WEIGHT_NORM.values()}
    return bool(position) and not any(word in key for key in keys for word in _OTHER_FAMILIES)


def from_fairseq_names(source: Source) -> Imported:
    """fairseq, s3prl and k2SSL: the same names for weights and arguments."""
    state = {_WEIGHT_NORM.get(key, key): value for key, value in source.state.items()}
    stated = _stated(source.settings)
    shown = {**_from_weights(state), **stated}
    if "conv_layers" not in shown or "heads" not in shown:
        raise SslbenchError(
            f"{source.path}: its shapes are not those of published models, so the number of heads and the "
            "CNN's strides cannot be told; give --model_config with the arguments it was trained with"
        )
    assumed = {key: shown[key] for key in _TELLING if key not in stated}
    return Imported(shown, state, assumed=assumed)


def _stated(arguments: Mapping[str, Any]) -> dict[str, Any]:
    require(arguments, "layer_type", "transformer")
    require(arguments, "activation_fn", "gelu")
    require(arguments, "pos_enc_type", "abs")
    require(arguments, "attn_type", "")
    require(arguments, "conv_pos_batch_norm", False)
    found = masked_unit_settings(arguments)
    return found | {ours: arguments[theirs] for theirs, ours in _SAME.items() if theirs in arguments}


def _from_weights(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes that shapes tell, and what the published models have where they do not tell."""
    found = cnn_from_weights(state)
    found["layers"] = count(state, "encoder.layers.{}.fc1.weight")
    large = found["extractor_mode"] == "layer"
    found |= {"layer_norm_first": large, "normalize": large}
    if found["layers"]:
        ffn_dim, dim = state["encoder.layers.0.fc1.weight"].shape
        found |= {"dim": dim, "ffn_dim": ffn_dim}
        if dim % 64 == 0:  # wide heads in every published model
            found["heads"] = dim // 64
        position = state.get(f"{_POSITION}.parametrizations.weight.original1")
        if position is not None:
            found |= {"conv_pos": position.shape[2], "conv_pos_groups": dim // position.shape[1]}
    head, embeddings = state.get("final_proj.weight"), state.get("label_embs_concat")
    if head is None:
        return found | {"predict_layers": []}
    if embeddings is None:
        return found | {"objective": "ce", "num_units": head.shape[0]}
    return found | {"objective": "nce", "final_dim": head.shape[0], "num_units": embeddings.shape[0]}


CONVERTER = Converter(
    recognises,
    {
        "fairseq": from_fairseq_names,
        "s3prl": from_fairseq_names,
        "k2ssl": from_fairseq_names,
        "hf": from_hf,
    },
    {"hf": to_hf},
)
