"""One way to get an upstream by name: ours, a plugin's, or anything s3prl knows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from torch import nn

from sslbench import registry


def load_upstream(
    name: str, ckpt: Path | str | None = None, frozen: bool = True, **options: Any
) -> nn.Module:
    """Build an upstream.

    Args:
        name: a registered name, or any name of `s3prl.hub` (loaded through s3prl, always frozen there).
        ckpt: checkpoint folder; without one, a registered name has random weights.
        frozen: False to fine-tune.
        **options: passed to the entry.

    Returns:
        A module with `forward(list of (T,)) -> {"hidden_states": [...]}`, `get_downsample_rates(key)` and
        `weights` ("trained", "imported", "random" or "none").

    Raises:
        SslbenchError: unknown name (with the nearest known ones), or a damaged or unfitting checkpoint.
    """
    known = registry.upstreams()
    if name not in known and importlib.util.find_spec("s3prl") is not None:
        from sslbench.integrations.s3prl.load import load_s3prl_upstream

        return load_s3prl_upstream(name, ckpt=ckpt, frozen=frozen, **options)
    upstream: nn.Module = known[name].load()(ckpt=str(ckpt) if ckpt else None, frozen=frozen, **options)
    return upstream
