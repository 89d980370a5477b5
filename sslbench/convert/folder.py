"""Folders in Hugging Face's format, read without transformers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from sslbench.convert import unpickle
from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.io import read_json, sha256_file

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of weights files, in the order in which transformers looks for them."""


def read_hf(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and configuration of a folder.

    Returns:
        Weights without the model's prefix (`hubert.` in a recognizer's checkpoint), and config.json's
        values with `do_normalize` of preprocessor_config.json, where there is one.

    Raises:
        SslbenchError: no such folder, or files are missing.
        CorruptFileError: damaged weights.
    """
    if not (folder / "config.json").is_file():
        raise SslbenchError(f"{folder}: no folder in Hugging Face's format (no config.json in it)")
    settings = read_json(folder / "config.json")
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise SslbenchError(f"{folder}/config.json: names no model_type; take it from the model's page")
    if (folder / "preprocessor_config.json").is_file():
        values = read_json(folder / "preprocessor_config.json")
        settings["do_normalize"] = values.get("do_normalize", True)
    prefix = f"{settings['model_type']}."
    state = {key.removeprefix(prefix): value for key, value in _weights(folder).items()}
    return state, settings


def weights_file(folder: Path) -> Path:
    """The file that transformers would read: one with weights, or an index of several.

    Raises:
        SslbenchError: there is none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise SslbenchError(f"{folder}: holds no {WEIGHTS[0]} or {WEIGHTS[2]}; complete it")


def weights_sha256(folder: Path) -> str:
    """Of the weights that are read: of the file, or of its shards' names and checksums, in order."""
    file = weights_file(folder)
    if file.suffix != ".json":
        return sha256_file(file)
    digests = {shard.name: sha256_file(shard) for shard in _shards(file)}
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def _shards(file: Path) -> list[Path]:
    if file.suffix != ".json":
        return [file]
    index = read_json(file)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict):
        raise CorruptFileError(f"{file}: names no shards (weight_map); copy it again")
    shards = [file.parent / name for name in sorted(set(names.values()))]
    for shard in shards:
        if not shard.is_file():
            raise SslbenchError(f"{shard}: named by the index but missing; complete the folder")
    return shards


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    shards = _shards(weights_file(folder))
    return {key: value for shard in shards for key, value in _tensors(shard).items()}


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix != ".safetensors":
        return {key: value for key, value in unpickle.load(path).items() if isinstance(value, torch.Tensor)}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path}: damaged ({error}); copy it again") from None
