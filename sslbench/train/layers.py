"""An encoder's repeated layers: found by convention, measured, compiled, recomputed to save memory."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sslbench.errors import SslbenchError


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> layer, for every member of a `ModuleList` that its module calls `layers`."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and name.split(".")[-1] == "layers":
            found.update({f"{name}.{number}": layer for number, layer in enumerate(module)})
    return found


def recompute_activations(model: nn.Module) -> None:
    """Keep only each layer's input for the backward pass and compute the rest again: less memory, about a
    third more time, the same loss and gradients (random numbers are replayed).

    Raises:
        SslbenchError: the model has no `layers`.
    """
    for layer in _needed(model, "recompute_activations"):
        layer.forward = functools.partial(_recomputed, layer, layer.forward)


def compile_layers(model: nn.Module) -> None:
    """`torch.compile` each layer: equal ones share code, so this takes far less time than the whole model,
    and the front end may use what the compiler cannot follow.

    Raises:
        SslbenchError: the model has no `layers`.
    """
    for layer in _needed(model, "compile"):
        layer.compile()


def is_compiled(layer: nn.Module) -> bool:
    """Whether hooks on a layer would be compiled in for good."""
    return getattr(layer, "_compiled_call_impl", None) is not None


def _needed(model: nn.Module, setting: str) -> list[nn.Module]:
    layers = list(layers_of(model).values())
    if not layers:
        raise SslbenchError(f"{setting}: {type(model).__name__} has no ModuleList 'layers'; turn it off")
    return layers


def _recomputed(layer: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
