"""Parameter groups by name: what decays, and what learns at its own rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from sslbench.errors import SslbenchError


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    lr_scales: Mapping[str, float],
    no_decay: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Groups for an optimizer, in the order of first members; each holds its `names` and `lr_scale`.

    Norms and biases (tensors of one dimension or none) never decay.

    Args:
        named: as from `model.named_parameters()`.
        weight_decay: of what decays.
        lr_scales: shell-style pattern of names -> factor on the rate; the first that fits counts.
        no_decay: patterns of names that do not decay either.

    Raises:
        SslbenchError: a pattern fits no parameter.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    used: set[str] = set()
    for name, parameter in named:
        fitting = [p for p in (*lr_scales, *no_decay) if fnmatchcase(name, p)]
        used.update(fitting)
        scale = next((lr_scales[p] for p in fitting if p in lr_scales), 1.0)
        plain = parameter.ndim <= 1 or any(p in no_decay for p in fitting)
        decay = 0.0 if plain else weight_decay
        group = groups.setdefault(
            (scale, decay), {"params": [], "names": [], "lr_scale": scale, "weight_decay": decay}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    unused = sorted({*lr_scales, *no_decay} - used)
    if unused:
        raise SslbenchError(f"no parameter's name fits {', '.join(unused)}; see the model's state_dict keys")
    return list(groups.values())
