"""k2SSL's Zipformer checkpoints: same names for weights, icefall's argument names for settings.

Source: icefall `egs/librispeech/SSL/zipformer` (`pretrain.py`, `zipformer.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sslbench import config as configs
from sslbench.convert.arguments import cnn_from_weights, count, integers, masked_unit_settings, shape
from sslbench.convert.family import Converter, Imported
from sslbench.convert.source import Source
from sslbench.errors import SslbenchError
from sslbench.upstream.zipformer.config import ZipformerConfig

CONFIGS = Path(__file__).parent / "configs"
_LISTS = {
    "downsampling_factor": "downsampling",
    "num_encoder_layers": "layers",
    "encoder_dim": "dims",
    "encoder_unmasked_dim": "unmasked_dims",
    "feedforward_dim": "ffn_dims",
    "num_heads": "heads",
    "cnn_module_kernel": "kernels",
}
_NUMBERS = ("query_head_dim", "value_head_dim", "pos_head_dim")
_HEAD_DIMS = {"query_head_dim": 32, "value_head_dim": 12, "pos_head_dim": 4}
"""Of every published model; weights show only their products with the number of heads."""
_FIRST = "encoder.encoders.0.layers.0.self_attn_weights.in_proj.weight"


def recognises(source: Source) -> bool:
    """Whether the weights are a Zipformer's, by the first attention of its first stack."""
    return _FIRST in source.state


def from_k2ssl(source: Source) -> Imported:
    """Settings from the checkpoint's arguments, else from the shapes; weights as they are."""
    measured = _from_weights(source.state)
    stated = _stated(source.settings, len(measured["dims"]))
    shown = {**measured, **stated}
    if "conv_layers" not in shown or "heads" not in shown:
        raise SslbenchError(
            f"{source.path}: its shapes are not those of k2SSL's models, so the number of heads and the "
            "CNN's strides cannot be told; give --model_config with icefall's arguments"
        )
    assumed = {key: shown[key] for key in ("heads", "unmasked_dims", "normalize") if key not in stated}
    return Imported(shown, dict(source.state), assumed=assumed)


def _stated(arguments: Mapping[str, Any], stacks: int) -> dict[str, Any]:
    found = masked_unit_settings(arguments)
    for theirs, ours in _LISTS.items():
        if theirs in arguments:
            values = integers(arguments[theirs])
            found[ours] = values * stacks if len(values) == 1 else values  # icefall's short form
    found |= {key: _one(key, arguments[key]) for key in _NUMBERS if key in arguments}
    if "pos_dim" in arguments:
        found["pos_dim"] = int(arguments["pos_dim"])
    return found


def _one(key: str, value: Any) -> int:
    """The width that all stacks have. Raises `SslbenchError` where they differ."""
    values = integers(value)
    if len(set(values)) != 1:
        raise SslbenchError(
            f"convert: {key} {value!r} differs between stacks; this family has one for all of them"
        )
    return values[0]


def _published() -> list[ZipformerConfig]:
    """k2SSL's two models, for what their weights do not show."""
    names = ("zipformer_base", "zipformer_large")
    return [configs.load(ZipformerConfig, CONFIGS / f"{name}.yaml") for name in names]


def _from_weights(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What shapes tell; `heads` only where head widths are the published ones."""
    stacks: list[dict[str, int]] = []
    while stack := _stack(state, f"encoder.encoders.{len(stacks)}"):
        stacks.append(stack)
    found = cnn_from_weights(state)
    for name in stacks[0] if stacks else ():
        found[name] = [stack[name] for stack in stacks]
    if not all(found["heads"]):
        del found["heads"]
    known = next((preset for preset in _published() if preset.dims == found["dims"]), None)
    found["unmasked_dims"] = list(known.unmasked_dims if known else found["dims"])
    found["normalize"] = known is not None and known.normalize
    position = "encoder.encoders.0.layers.0.self_attn_weights.linear_pos.weight"
    found["pos_dim"] = shape(state, position)[1]
    head = state.get("final_proj.weight")
    if head is None:
        return found | {"predict_layers": []}
    return found | {"num_units": head.shape[0]}


def _stack(state: Mapping[str, Tensor], prefix: str) -> dict[str, int]:
    """One stack's settings; empty where there is no such stack, `heads` 0 where it cannot be told."""
    factor = state.get(f"{prefix}.downsample.bias")
    layers = f"{prefix}.layers" if factor is None else f"{prefix}.encoder.layers"
    if f"{layers}.0.self_attn_weights.in_proj.weight" not in state:
        return {}
    scores, dim = shape(state, f"{layers}.0.self_attn_weights.in_proj.weight")
    values = shape(state, f"{layers}.0.self_attn1.in_proj.weight")[0]
    heads = values // _HEAD_DIMS["value_head_dim"]
    per_head = 2 * _HEAD_DIMS["query_head_dim"] + _HEAD_DIMS["pos_head_dim"]
    published = (scores, values) == (heads * per_head, heads * _HEAD_DIMS["value_head_dim"])
    return {
        "downsampling": 1 if factor is None else len(factor),
        "layers": count(state, layers + ".{}.norm.log_scale"),
        "dims": dim,
        "ffn_dims": shape(state, f"{layers}.0.feed_forward2.in_proj.weight")[0],
        "kernels": shape(state, f"{layers}.0.conv_module1.depthwise_conv.weight")[2],
        "heads": heads if published else 0,
    }


CONVERTER = Converter(recognises, {"k2ssl": from_k2ssl})
