"""k2 where it can be used, and its fused swoosh kernels.

k2 (https://github.com/k2-fsa/k2) computes an activation and its derivative in one kernel, where torch needs
about five. Both give the same numbers to rounding (`make test-k2`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor


@functools.cache
def why_not() -> str | None:
    """Why k2 cannot be used; None where it can. Tried once per process: a k2 built for another torch or CUDA
    is found, but its import fails."""
    if importlib.util.find_spec("k2") is None:
        return "not installed"
    try:
        importlib.import_module("k2")
    except Exception as error:  # what a library that does not fit raises differs by version
        return f"its import fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def available() -> bool:
    """Whether k2 can be used."""
    return why_not() is None


class Kernels:
    """The four functions of k2 that Zipformer's activations are made of; fp32 in, fp32 out."""

    def __init__(self) -> None:
        import k2

        self._values: dict[bool, Callable[[Tensor], Tensor]] = {
            True: k2.swoosh_l_forward,
            False: k2.swoosh_r_forward,
        }
        self._both: dict[bool, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
            True: k2.swoosh_l_forward_and_deriv,
            False: k2.swoosh_r_forward_and_deriv,
        }

    def value(self, x: Tensor, left: bool) -> Tensor:
        """SwooshL (`left`) or SwooshR."""
        return self._values[left](x.contiguous())

    def value_and_slope(self, x: Tensor, left: bool) -> tuple[Tensor, Tensor]:
        """The activation and its derivative."""
        y, slope = self._both[left](x.contiguous())
        return y, slope


@functools.cache
def load() -> Kernels | None:
    """k2's kernels, or None where k2 cannot be used."""
    try:
        return Kernels() if available() else None
    except AttributeError:  # from before k2 had them
        return None


def kernels(x: Tensor) -> Kernels | None:
    """The kernels to use for a tensor; None for those without values, as when MACs are counted, or
    compiled code, which fuses by itself."""
    if x.is_meta or type(x) is not Tensor or (hasattr(torch, "compiler") and torch.compiler.is_compiling()):
        return None
    return load()
