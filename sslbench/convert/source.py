"""What a foreign checkpoint holds, in one form: weights by name, settings by name, where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sslbench.convert import unpickle
from sslbench.convert.folder import read_hf, weights_file, weights_sha256
from sslbench.errors import SslbenchError
from sslbench.io import read_json, read_yaml, sha256_file


@dataclass
class Source:
    """One foreign checkpoint."""

    format: str
    """"k2ssl", "fairseq", "hf" or "s3prl"."""
    path: Path
    state: dict[str, torch.Tensor]
    """Weights under the format's own names."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Configuration under the format's own names, plain values; empty where none is stored."""
    origin: dict[str, Any] = field(default_factory=dict)
    """For the card: file, sha256, which weights."""
    left_out: list[str] = field(default_factory=list)
    """Names of tensors outside the encoder."""


def read(format: str, path: Path, use_average: bool, model_config: Path | None) -> Source:
    """Read a checkpoint; settings in `model_config` replace those stored in it.

    Args:
        format: one of `sslbench.convert.FORMATS`.
        path: the file, or the folder for "hf".
        use_average: k2SSL's running average instead of the last weights.
        model_config: JSON or YAML of the format's own names, at the top or under `args`.

    Raises:
        SslbenchError: missing, of another format, or holding code.
        CorruptFileError: damaged.
    """
    if use_average and format != "k2ssl":
        raise SslbenchError(f"convert: --use_average is for k2ssl; {format} holds one set of weights")
    if format == "hf":
        state, settings = read_hf(path)
        file, sha256 = weights_file(path), weights_sha256(path)
    else:
        content = unpickle.load(path)
        if not isinstance(content, Mapping):
            raise SslbenchError(f"{path}: holds a {type(content).__name__}, no dictionary; give a checkpoint")
        state, settings = READERS[format](path, content, use_average)
        file, sha256 = path, sha256_file(path)
    if model_config is not None:
        settings = {**settings, **_given(model_config)}
    origin = {"format": format, "file": file.name, "sha256": sha256}
    state = _without_wrapper(state)
    left_out: list[str] = []
    if format == "k2ssl":
        stored = "model_avg" if use_average else "model"
        origin["which"] = stored if stored in content else "the only weights"
        state, left_out = _without_recognizer(state)
    return Source(format, path, state, settings, origin, left_out)


def _k2ssl(
    path: Path, content: Mapping[str, Any], use_average: bool
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """icefall's `save_checkpoint`: weights under `model` and `model_avg`, the arguments beside them."""
    key = "model_avg" if use_average else "model"
    if key not in content and _is_state(content):
        if use_average:
            raise SslbenchError(f"{path}: holds one set of weights; convert it without --use_average")
        return dict(content), {}
    if not _is_state(content.get(key)):
        hint = "convert it without --use_average" if use_average else "give a checkpoint of icefall's trainer"
        raise SslbenchError(f"{path}: has no weights under {key!r} (keys: {_some(content)}); {hint}")
    skipped = ("model", "model_avg", "optimizer", "scheduler", "grad_scaler", "sampler")
    settings = {name: unpickle.plain(value) for name, value in content.items() if name not in skipped}
    return dict(content[key]), {name: value for name, value in settings.items() if value is not None}


def _fairseq(
    path: Path, content: Mapping[str, Any], use_average: bool
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """fairseq's trainer: weights under `model`; `cfg` (or, before hydra, `args`) with model and task."""
    if not _is_state(content.get("model")):
        raise SslbenchError(
            f"{path}: has no weights under 'model' (keys: {_some(content)}); give fairseq's own .pt, or use "
            "--from s3prl for a file that s3prl converted"
        )
    cfg = unpickle.plain(content.get("cfg"))
    if isinstance(cfg, dict) and isinstance(cfg.get("model"), dict):
        settings = {**cfg["model"], **_task(cfg.get("task"))}
    else:
        settings = unpickle.plain(content.get("args")) or {}
    return dict(content["model"]), settings


def _s3prl(
    path: Path, content: Mapping[str, Any], use_average: bool
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """s3prl's converted fairseq checkpoints (s3prl 0.4.18, upstream/hubert/convert.py)."""
    missing = [key for key in ("task_cfg", "model_cfg", "model_weight") if key not in content]
    if missing or not _is_state(content["model_weight"]):
        raise SslbenchError(
            f"{path}: lacks {', '.join(missing) or 'tensors in model_weight'} (keys: {_some(content)}); "
            "give a checkpoint that s3prl converted, or use --from fairseq for fairseq's own"
        )
    settings = unpickle.plain(content["model_cfg"])
    return dict(content["model_weight"]), {**settings, **_task(unpickle.plain(content["task_cfg"]))}


READERS: dict[str, Callable[..., tuple[dict[str, torch.Tensor], dict[str, Any]]]] = {
    "k2ssl": _k2ssl,
    "fairseq": _fairseq,
    "s3prl": _s3prl,
}
"""Of the formats that are one pickled file."""


def _task(task: Any) -> dict[str, Any]:
    """The setting of fairseq's task that belongs to the model here."""
    return {"normalize": task["normalize"]} if isinstance(task, dict) and "normalize" in task else {}


def _given(path: Path) -> dict[str, Any]:
    values = read_json(path) if path.suffix == ".json" else read_yaml(path)
    if not isinstance(values, dict):
        raise SslbenchError(f"{path}: expected names and values, at the top or under 'args'")
    found: dict[str, Any] = values["args"] if isinstance(values.get("args"), dict) else values
    return found


def _without_wrapper(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without the `module.` of DistributedDataParallel."""
    prefix = "module."
    if all(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _without_recognizer(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The pretrained model within icefall's recognizers (its `finetune.py`), and the names of all else."""
    prefix = "encoder."
    if not any(key.startswith(f"{prefix}feature_extractor.") for key in state):
        return dict(state), []
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inside, sorted(key for key in state if not key.startswith(prefix))


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(item, torch.Tensor) for item in value.values())
    )


def _some(content: Mapping[str, Any]) -> str:
    keys = [str(key) for key in content]
    return ", ".join(keys[:6]) + (", …" if len(keys) > 6 else "") if keys else "none"
