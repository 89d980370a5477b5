"""Folders in Hugging Face's format, read without transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sslbench.convert import unpickle
from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.io import read_json


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


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return _tensors(folder / name)
        if (folder / f"{name}.index.json").is_file():
            shards = sorted(set(read_json(folder / f"{name}.index.json")["weight_map"].values()))
            return {key: value for shard in shards for key, value in _tensors(folder / shard).items()}
    raise SslbenchError(f"{folder}: holds no model.safetensors or pytorch_model.bin; complete it")


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix != ".safetensors":
        return {key: value for key, value in unpickle.load(path).items() if isinstance(value, torch.Tensor)}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise SslbenchError(f"{path}: named by the index but missing; complete the folder") from None
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path}: damaged ({error}); copy it again") from None
