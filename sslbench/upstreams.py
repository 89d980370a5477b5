"""One way to get an upstream by name: ours, a plugin's, or anything s3prl knows."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
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
    name: str,
    ckpt: Path | str | None = None,
    frozen: bool = True,
    stand_in: bool = False,
    **options: Any,
) -> nn.Module:
    """Build an upstream.

    Args:
        name: a registered name, any name of `s3prl.hub`, or `module:Class` of an s3prl-style expert
            (modules in the working directory count).
        ckpt: checkpoint folder; without one, a registered name has random weights.
        frozen: False to fine-tune.
        stand_in: random weights will do where s3prl cannot fetch its own.
        **options: passed to the entry.

    Returns:
        A module with `forward(list of (T,)) -> {"hidden_states": [...]}`, `get_downsample_rates(key)` and
        `weights` ("trained", "imported", "random" or "none").

    Raises:
        SslbenchError: unknown name (with the nearest known ones), a damaged or unfitting checkpoint, or
            weights that cannot be fetched.
    """
    if ":" in name:
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return _load_plugin(registry.Entry(name, name, name, "plugin"), ckpt, frozen, **options)
    known = registry.upstreams()
    if name not in known and importlib.util.find_spec("s3prl") is not None:
        from sslbench.integrations.s3prl.load import load_s3prl_upstream

        return load_s3prl_upstream(name, ckpt=ckpt, frozen=frozen, stand_in=stand_in, **options)
    entry = known[name]
    if entry.source == "plugin":
        return _load_plugin(entry, ckpt, frozen, **options)
    upstream: nn.Module = entry.load()(ckpt=str(ckpt) if ckpt else None, frozen=frozen, **options)
    return upstream


def _load_plugin(
    entry: registry.Entry,
    ckpt: Path | str | None,
    frozen: bool,
    raw: bool = False,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """What somebody else's class or function builds; an expert of s3prl's calling convention is wrapped."""
    build = entry.load()
    if not callable(build):
        raise SslbenchError(f"{entry.name}: is no class or function that builds an upstream")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ours = _taken(build, frozen=frozen, seed=seed)
        built = build(ckpt=str(ckpt) if ckpt else None, **ours, **options)
    if not isinstance(built, nn.Module):
        raise SslbenchError(f"{entry.name}: builds no torch module")
    if isinstance(getattr(built, "weights", None), str):  # as our contract wants it
        return built
    weights = ("imported" if ckpt else "random") if any(True for _ in built.parameters()) else "none"
    return ForeignUpstream(built, weights, frozen, raw)


def _taken(build: Callable[..., Any], **ours: Any) -> dict[str, Any]:
    """Those arguments that a callable takes; s3prl's convention has none of them."""
    parameters = inspect.signature(build).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return ours
    return {name: value for name, value in ours.items() if name in parameters}


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
