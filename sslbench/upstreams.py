"""One way to get an upstream by name: ours, a plugin's, or anything s3prl knows."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslbench import config as configs
from sslbench import registry
from sslbench.errors import SslbenchError
from sslbench.io import read_yaml
from sslbench.nn.foreign import ForeignUpstream
from sslbench.nn.upstream import SSLModel


def load_upstream(
    name: str, ckpt: Path | str | None = None, frozen: bool = True, **options: Any
) -> nn.Module:
    """Build an upstream.

    Args:
        name: a registered name, any name of `s3prl.hub`, or `module:Class` of an s3prl-style expert
            (modules in the working directory count).
        ckpt: checkpoint folder; without one, a registered name has random weights.
        frozen: False to fine-tune.
        **options: passed to the entry.

    Returns:
        A module with `forward(list of (T,)) -> {"hidden_states": [...]}`, `get_downsample_rates(key)` and
        `weights` ("trained", "imported", "random" or "none").

    Raises:
        SslbenchError: unknown name (with the nearest known ones), or a damaged or unfitting checkpoint.
    """
    if ":" in name:
        return _load_expert(name, ckpt, frozen, **options)
    known = registry.upstreams()
    if name not in known and importlib.util.find_spec("s3prl") is not None:
        from sslbench.integrations.s3prl.load import load_s3prl_upstream

        return load_s3prl_upstream(name, ckpt=ckpt, frozen=frozen, **options)
    upstream: nn.Module = known[name].load()(ckpt=str(ckpt) if ckpt else None, frozen=frozen, **options)
    return upstream


def _load_expert(
    target: str, ckpt: Path | str | None, frozen: bool, raw: bool = False, seed: int = 0, **options: Any
) -> nn.Module:
    """An expert that nobody registered, by where its class lies."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    entry = registry.Entry(target, target, family=target, source="plugin").load()
    if not callable(entry):
        raise SslbenchError(f"{target}: is no class or function that builds an upstream")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expert = entry(ckpt=str(ckpt) if ckpt else None, **options)
    return ForeignUpstream(expert, "imported" if ckpt else "random", frozen, raw)


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
        cls.config_class, configs.merged(values, overrides or {}), where=str(entry.config or preset)
    )
    return cls(settings)
