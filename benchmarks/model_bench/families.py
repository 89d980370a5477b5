"""Where a step's time goes, by family of operators."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

OPERATORS = {
    "products of linear layers": "mm addmm",
    "batched products": "bmm baddbmm",
    "convolutions": "convolution mkldnn_convolution convolution_backward conv_depthwise2d cudnn_convolution",
    "activations, norms, softmax": "gelu gelu_backward softplus sigmoid sigmoid_ sigmoid_backward tanh "
    "tanh_backward glu glu_backward _softmax _softmax_backward_data native_layer_norm "
    "native_layer_norm_backward",
    "copies and fills": "copy_ fill_ zero_ cat masked_fill_",
}
OTHER, OUTSIDE = "other operators", "outside operators"
FAMILIES = (*OPERATORS, OTHER, OUTSIDE)
_FAMILY = {f"aten::{name}": family for family, names in OPERATORS.items() for name in names.split()}


def seconds_by_family(step: Callable[[], object]) -> dict[str, float]:
    """Seconds of one step in each of `FAMILIES`: operators by their own time, the rest is `OUTSIDE` of them
    (Python, autograd, freeing memory). Profiling makes small operators slower than they are."""
    found = dict.fromkeys(FAMILIES, 0.0)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as prof:
        began = time.perf_counter()
        step()
        found[OUTSIDE] = time.perf_counter() - began
    for event in prof.key_averages():
        if event.key.startswith("aten::"):
            seconds = event.self_cpu_time_total / 1e6
            found[_FAMILY.get(event.key, OTHER)] += seconds
            found[OUTSIDE] -= seconds
    return found


def flops_by_family(counts: dict[Any, int]) -> dict[str, int]:
    """A `FlopCounterMode`'s totals per operator, added up per family."""
    found = dict.fromkeys(FAMILIES, 0)
    for operator, flops in counts.items():
        found[_FAMILY.get(str(operator).replace(".", "::"), OTHER)] += flops
    return found
