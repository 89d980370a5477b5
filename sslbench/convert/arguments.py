"""The argument names that fairseq's HuBERT and icefall's SSL recipes share, as settings of our models."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sslbench.errors import SslbenchError
from sslbench.nn.frontend import WAV2VEC2_LAYERS

Convs = list[tuple[int, int, int]]

_SAME = {
    "conv_bias": "conv_bias",
    "normalize": "normalize",
    "do_normalize": "normalize",
    "feature_grad_mult": "feature_grad_mult",
    "dropout_input": "dropout_input",
    "mask_prob": "mask_prob",
    "mask_length": "span_frames",
    "logit_temp": "temperature",
}
_SWITCHES = ("conv_bias", "normalize", "do_normalize")


def masked_unit_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Front end, masks and loss as the arguments state them; what they leave out is left out.

    Raises:
        SslbenchError: a value that our models cannot have.
    """
    require(arguments, "target_glu", False)
    found = {ours: arguments[theirs] for theirs, ours in _SAME.items() if theirs in arguments}
    found |= {_SAME[key]: truth(key, arguments[key]) for key in _SWITCHES if key in arguments}
    if "extractor_mode" in arguments:
        modes = {"default": "group", "layer_norm": "layer"}
        mode = require(arguments, "extractor_mode", *modes)
        found["extractor_mode"] = modes[mode]
    if "conv_feature_layers" in arguments:
        found["conv_layers"] = conv_layers(arguments["conv_feature_layers"])
    classes = arguments.get("num_classes", ())
    if isinstance(classes, Sequence) and len(classes) > 1:
        raise SslbenchError(f"convert: the model predicts {len(classes)} sets of units; one is supported")
    return found


def require(arguments: Mapping[str, Any], key: str, *accepted: Any) -> Any:
    """The value of an argument, the first accepted one where it is absent.

    Raises:
        SslbenchError: another value.
    """
    value = arguments.get(key, accepted[0])
    if value not in accepted:
        names = ", ".join(map(repr, accepted))
        raise SslbenchError(
            f"convert: the model has {key} {value!r}, which this family has no form for ({names})"
        )
    return value


def truth(key: str, value: Any) -> bool:
    """A switch as toolkits write it: a boolean, 0 or 1 (icefall), or the text of one (bool("False") is true).

    Raises:
        SslbenchError: anything else.
    """
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    found = False if value is None else known.get(str(value).lower())
    if found is None:
        raise SslbenchError(f"convert: {key} {value!r} is neither true nor false")
    return found


def conv_layers(text: Any) -> Convs:
    """`[(512,10,5)] + [(512,3,2)] * 4` as a list; the text is parsed, never run.

    Raises:
        SslbenchError: anything but lists of integer triples, sums and repetitions.
    """
    try:
        value = _evaluate(ast.parse(text, mode="eval").body) if isinstance(text, str) else text
        return [(int(c), int(k), int(s)) for c, k, s in value]
    except (ValueError, TypeError, SyntaxError):
        raise SslbenchError(
            f"convert: conv_feature_layers {text!r} is no list of (channels, kernel, stride)"
        ) from None


def _evaluate(node: ast.expr) -> Any:
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_evaluate(item) for item in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(right, int) and right <= 64:
            return left * right
    raise ValueError("unknown expression")


def integers(value: Any) -> list[int]:
    """`1,2,4` (icefall), a number or a list as a list of integers. Raises `SslbenchError`."""
    try:
        if isinstance(value, str):
            return [int(part) for part in value.split(",")]
        return [int(part) for part in value] if isinstance(value, Sequence) else [int(value)]
    except (ValueError, TypeError):
        raise SslbenchError(f"convert: {value!r} is no list of integers as in 1,2,4") from None


def cnn_from_weights(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the waveform CNN's tensors tell: layers, norm, bias. Strides are wav2vec 2.0's.

    Raises:
        SslbenchError: the tensors are absent, or kernels are others than wav2vec 2.0's.
    """
    prefix = "feature_extractor.conv_layers."
    shapes: list[tuple[int, ...]] = []
    while (weight := state.get(f"{prefix}{len(shapes)}.0.weight")) is not None:
        shapes.append(tuple(weight.shape))
    if not shapes:
        raise SslbenchError(f"convert: missing {prefix}0.0.weight; the checkpoint is incomplete")
    kernels = [kernel for _, kernel, _ in WAV2VEC2_LAYERS]
    found: dict[str, Any] = {
        "extractor_mode": "layer" if f"{prefix}1.2.1.weight" in state else "group",
        "conv_bias": f"{prefix}0.0.bias" in state,
    }
    if [shape[2] for shape in shapes] == kernels:
        found["conv_layers"] = [
            (shape[0], kernel, stride)
            for shape, (_, kernel, stride) in zip(shapes, WAV2VEC2_LAYERS, strict=True)
        ]
    return found


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many of `pattern` (with `{}` for 0, 1, …) are there."""
    number = 0
    while pattern.format(number) in state:
        number += 1
    return number


def shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """A tensor's shape. Raises `SslbenchError` naming the key when it is missing."""
    if key not in state:
        raise SslbenchError(f"convert: missing {key}; the checkpoint is incomplete")
    return tuple(state[key].shape)
