"""One way to get an upstream by name: ours, a plugin's, or anything s3prl knows."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sslbench import config as configs
from sslbench import registry
from sslbench.errors import SslbenchError
from sslbench.io import read_yaml
from sslbench.nn.upstream import SSLModel


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


def model_class(family: str) -> type[SSLModel]:
    """The pretrainable class of a family: the attribute `MODEL` of `upstream/<family>/model.py`.

    Raises:
        SslbenchError: no such family, or it cannot be pretrained.
    """
    name = f"sslbench.upstream.{family}.model"
    try:
        found = importlib.import_module(name).MODEL
    except (ImportError, AttributeError) as error:
        raise SslbenchError(
            f"{family}: cannot be pretrained here, since {name} has no MODEL ({error})"
        ) from error
    if not (isinstance(found, type) and issubclass(found, SSLModel)):
        raise SslbenchError(f"{family}: MODEL in {name} is no SSLModel class")
    return found


def build_model(preset: str, overrides: Mapping[str, Any] | None = None) -> SSLModel:
    """A fresh model of a registered preset; the random numbers of its weights come from torch's generator.

    Args:
        preset: registered name with a configuration file.
        overrides: settings that differ from the preset's.

    Raises:
        SslbenchError: unknown preset, or settings that do not fit the family.
    """
    entry = registry.upstreams()[preset]
    if entry.source != "sslbench":
        raise SslbenchError(f"{preset}: comes from a plugin, which pretrains its models itself")
    cls = model_class(entry.family)
    values = dict(read_yaml(entry.config) or {}) if entry.config else {}
    settings = configs.build(
        cls.config_class, {**values, **(overrides or {})}, where=str(entry.config or preset)
    )
    return cls(settings)
