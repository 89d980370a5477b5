"""Where an encoder can be added to: its layers, their attention and feed-forward parts, found by name.

Names differ between code bases (ours, fairseq's, Hugging Face's), so patterns propose modules and one forward
pass on noise disposes: it shows which of them are called at all, and how their output lies in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.errors import SslbenchError

# `encoder.layers.3`, `encoder.layer.3` (BERT), `encoders.0.layers.1`, `blocks.2`
BLOCK = re.compile(r"(^|\.)(layers?|blocks?|encoders|transformer_layers)\.\d+$")
ATTENTION = re.compile(r"^(self_attn\d?|self_attention|attention|attn|mhsa)$")
FEED_FORWARD = re.compile(r"^(fc2|feed_forward\d?|ffn\d?|w_2|linear2|lin2)$")
QUERY_VALUE = re.compile(
    r"(^|\.)(q_proj|v_proj|query|value|q_lin|v_lin|linear_q|linear_v|(self_attn\w*|attention|attn)\.in_proj)$"
)
FEED_FORWARD_LINEAR = re.compile(r"(^|\.)(fc1|fc2|intermediate_dense|output_dense|w_1|w_2|linear1|linear2)$")
CLIPS = 3
"""Clips of the trial pass: an axis of this size is the batch."""


@dataclass(frozen=True)
class Site:
    """A module whose output frames may be changed."""

    name: str
    dim: int
    batch_axis: int
    """0 or 1; time is the other one."""
    stride: int
    """Samples per frame of this output."""


def blocks(upstream: nn.Module) -> list[str]:
    """Names of an encoder's layers in order, the innermost where they are nested.

    Raises:
        SslbenchError: none is found.
    """
    named = [
        name
        for name, module in upstream.named_modules()
        if BLOCK.search(name) and sum(isinstance(part, nn.Linear) for part in module.modules()) >= 2
    ]
    found = [name for name in named if not any(other.startswith(name + ".") for other in named)]
    if not found:
        raise SslbenchError(
            "peft: no layers found in this upstream (modules named layers.N, layer.N or blocks.N with linear "
            "maps); tune: frozen, full and ladder need none"
        )
    return found


@torch.no_grad()
def outputs(upstream: nn.Module, names: Iterable[str]) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of the outputs of named modules in a pass over `CLIPS` seconds of noise; [] where not called."""
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in names}
    modules = dict(upstream.named_modules())

    def watch(name: str) -> Any:
        return modules[name].register_forward_hook(
            lambda module, args, output: shapes[name].append(tuple(frames_of(output).shape))
        )

    hooks = [watch(name) for name in shapes]
    was_training = upstream.training
    upstream.eval()
    place = next((p.device for p in upstream.parameters()), torch.device("cpu"))
    noise = torch.Generator().manual_seed(0)
    try:
        upstream([0.1 * torch.randn(SAMPLE_RATE_HZ, generator=noise).to(place) for _ in range(CLIPS)])
    finally:
        upstream.train(was_training)
        for hook in hooks:
            hook.remove()
    return shapes


def frames_of(output: Any) -> torch.Tensor:
    """The hidden states among a module's output: the first tensor."""
    while isinstance(output, (tuple, list)):
        output = output[0]
    return output if isinstance(output, torch.Tensor) else torch.zeros(0)


def sites(upstream: nn.Module, names: list[str]) -> list[Site]:
    """Those of the named modules that are called once and give (B, T, D) or (T, B, D)."""
    found = []
    for name, shapes in outputs(upstream, names).items():
        if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][:2].count(CLIPS) == 1:
            batch_axis = shapes[0].index(CLIPS)
            found.append(Site(name, shapes[0][2], batch_axis, _stride(shapes[0][1 - batch_axis])))
    return found


def _stride(frames: int) -> int:
    # a multiple of 20 ms, or of 10 ms for filterbank encoders, whatever the rounding at the edges
    return max(160, round(SAMPLE_RATE_HZ / frames / 160) * 160)


def last_parts(upstream: nn.Module) -> list[Site]:
    """For each layer, its last attention and its last feed-forward part (Houlsby's two places).

    Raises:
        SslbenchError: no layer has one that can be changed.
    """
    layers = blocks(upstream)
    names = [
        name
        for name, _ in upstream.named_modules()
        if any(name.startswith(layer + ".") for layer in layers)
        and (ATTENTION.match(name.rsplit(".", 1)[-1]) or FEED_FORWARD.match(name.rsplit(".", 1)[-1]))
    ]
    usable = sites(upstream, names)
    chosen = []
    for layer in layers:
        for kind in (ATTENTION, FEED_FORWARD):
            inside = [
                site
                for site in usable
                if site.name.startswith(layer + ".") and kind.match(site.name.rsplit(".", 1)[-1])
            ]
            chosen += inside[-1:]
    if not chosen:
        raise SslbenchError("peft: no attention or feed-forward part of this upstream can be adapted")
    return chosen


def linear_targets(upstream: nn.Module, endings: list[str]) -> list[str]:
    """Names of the linear layers that low-rank updates go to.

    Args:
        upstream: the encoder.
        endings: of names; without any, the patterns are tried in turn.

    Raises:
        SslbenchError: none matches; or one that was asked for is used without being called, so that an
            update would do nothing.
    """
    layers = [layer + "." for layer in blocks(upstream)]
    linears = [name for name, module in upstream.named_modules() if isinstance(module, nn.Linear)]
    if endings:
        wanted = [name for name in linears if any(("." + name).endswith("." + end) for end in endings)]
        silent = [name for name, shapes in outputs(upstream, wanted).items() if not shapes]
        if not wanted or silent:
            what = f"{silent[0]} is never called as a module" if silent else "no linear layer has such a name"
            raise SslbenchError(
                f"peft: targets {', '.join(endings)}: {what}; linear layers end in "
                + ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linears}))
            )
        return wanted
    inside = [name for name in linears if any(name.startswith(layer) for layer in layers)]
    called = {name for name, shapes in outputs(upstream, inside).items() if shapes}
    for pattern in (QUERY_VALUE, FEED_FORWARD_LINEAR):
        matching = [name for name in inside if name in called and pattern.search(name)]
        if matching:
            return matching
    raise SslbenchError("peft: no attention or feed-forward projections found by name; set peft.targets")
