"""An encoder's repeated layers: found by convention, measured by the watchdog, recomputed to save memory."""

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
    layers = layers_of(model)
    if not layers:
        raise SslbenchError(
            f"recompute_activations: {type(model).__name__} has no ModuleList called 'layers'; turn it off"
        )
    for layer in layers.values():
        layer.forward = functools.partial(_recomputed, layer, layer.forward)


def _recomputed(layer: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
