"""Any upstream of s3prl behind our contract: frozen stays frozen, frame counts fit, weights are named."""

from __future__ import annotations

import importlib
import socket
import sys
import warnings
from collections.abc import Callable
from os.path import commonprefix
from pathlib import Path
from typing import Any

from torch import nn

from sslbench import registry
from sslbench.errors import SslbenchError, did_you_mean
from sslbench.integrations.s3prl.names import s3prl_names, takes_ckpt
from sslbench.nn.foreign import ForeignUpstream

DOWNLOAD_TIMEOUT_S = 20.0


def load_s3prl_upstream(
    name: str,
    ckpt: Path | str | None = None,
    frozen: bool = True,
    raw: bool = False,
    seed: int = 0,
    stand_in: bool = False,
    **options: Any,
) -> ForeignUpstream:
    """Build an upstream that s3prl knows.

    Args:
        name: a name of `s3prl.hub`.
        ckpt: file, folder or address, for names ending in `_local`, `_url` and `_custom`.
        frozen: False to fine-tune.
        raw: leave frame counts and short clips as the expert treats them (for `sslbench check`).
        seed: of random weights.
        stand_in: where the weights cannot be fetched, give their architecture random ones, with a warning.
        **options: passed to s3prl's entry.

    Raises:
        SslbenchError: unknown name (with the nearest known ones), a checkpoint for a name that takes none, or
            s3prl cannot build it.
    """
    if ckpt is not None:
        if name in s3prl_names() and not takes_ckpt(name):
            raise SslbenchError(f"{name}: takes no --ckpt, which s3prl would ignore; {_for_a_file(name)}")
        options["ckpt"] = str(ckpt)
    entry = _find(name)
    try:
        expert = _call(entry, options)
    except (OSError, ImportError, AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        unfetched = stand_in and ckpt is None and isinstance(error, OSError)
        fallback = _stand_in(name, seed) if unfetched else None
        if fallback is None:
            what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            advice = f"see whether {ckpt} is of that model" if ckpt is not None else _for_a_file(name)
            raise SslbenchError(f"{name}: s3prl cannot build it ({what}); {advice}") from error
        warnings.warn(
            f"{name}: its weights cannot be fetched; the architecture has RANDOM weights", stacklevel=2
        )
        return ForeignUpstream(fallback, "random", frozen, raw)
    has_parameters = any(True for _ in expert.parameters())
    return ForeignUpstream(expert, "imported" if has_parameters else "none", frozen, raw)


def _find(name: str) -> Callable[..., nn.Module]:
    from sslbench.integrations.s3prl import compat

    compat.apply()
    hub = sys.modules.get("s3prl.hub")
    known = s3prl_names()
    if hub is not None and hasattr(hub, name):  # also what others registered there
        return getattr(hub, name)
    if name not in known:
        ours = [entry.name for entry in registry.upstreams()]
        raise SslbenchError(f"no upstream named {name!r}; {did_you_mean(name, [*ours, *known])}")
    try:
        return getattr(importlib.import_module(known[name]), name)
    except ImportError as error:
        raise SslbenchError(f"{name}: {error}; pip install 'sslbench[s3prl]'") from error


def _for_a_file(name: str) -> str:
    """How to name weights that lie in a file, in words."""
    if takes_ckpt(name):
        return f"name its weights: {name} --ckpt FILE"
    known = s3prl_names()
    sisters = [other for other in known if known[other] == known.get(name) and takes_ckpt(other)]
    if not sisters:
        return "it has no name that loads a file"
    shared = {other: len(commonprefix([other, name])) for other in sisters}  # noqa: RUF071  # letters are meant
    nearest = max(sisters, key=lambda other: (shared[other], other.endswith("_local")))
    return f"weights in a file are named by {nearest} --ckpt FILE"


def _call(entry: Callable[..., nn.Module], options: dict[str, Any]) -> nn.Module:
    """Build the expert; a download behind a silent firewall fails soon instead of hanging."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or DOWNLOAD_TIMEOUT_S)
    try:
        return entry(**options)
    finally:
        socket.setdefaulttimeout(before)


def _stand_in(name: str, seed: int) -> nn.Module | None:
    from sslbench.integrations.s3prl.stand_in import stand_in

    try:
        return stand_in(name, seed)
    except ImportError:
        return None
