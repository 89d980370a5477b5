"""Folders in Hugging Face's format, and configurations without weights, as upstreams."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sslbench import config as configs
from sslbench.convert.folder import WEIGHTS, weights_sha256
from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.io import read_json
from sslbench.nn.upstream import Upstream
from sslbench.upstream.hf.config import MODELS, HFConfig
from sslbench.upstream.hf.model import HFEncoder


def build_upstream(
    preset: Path,
    ckpt: Path | str | None,
    model_config: Path | str | None,
    frozen: bool = True,
    seed: int = 0,
) -> Upstream:
    """An upstream from a folder with weights, or with random weights of a configuration (said loudly).

    Args:
        preset: YAML used when neither of the next two is given.
        ckpt: folder with config.json and model.safetensors or pytorch_model.bin.
        model_config: folder with config.json, such a JSON file, or a YAML file of `HFConfig`.
        frozen: False for fine-tuning.
        seed: of the random weights.

    Raises:
        SslbenchError: transformers is missing, the folder is none of a supported encoder, or its weights do
            not fit its configuration; or both a folder with weights and a configuration are given.
    """
    _require_transformers()
    if ckpt and model_config:
        raise SslbenchError(
            f"{model_config}: is for random weights, and {ckpt} has its own config.json; give one of them"
        )
    if ckpt:
        folder = _folder(ckpt)
        model = _pretrained(folder)
        encoder = HFEncoder(model, _preprocessor(folder))
        return Upstream(encoder, "imported", weights_sha256(folder), frozen)
    settings = _settings(Path(model_config or preset))
    warnings.warn(f"{preset.stem}: no checkpoint given, so the weights are RANDOM", stacklevel=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = _model_class(settings.model_type)(_config_class(settings.model_type)(**settings.settings))
        except (TypeError, ValueError) as error:
            where = model_config or preset
            raise SslbenchError(
                f"{where}: transformers cannot build it ({_first_line(error)}); mend settings"
            ) from None
        return Upstream(HFEncoder(model, settings.preprocessor), "random", None, frozen)


def _require_transformers() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise SslbenchError(
            f"hf: transformers cannot be imported ({error}); pip install 'sslbench[hf]'"
        ) from None
    # WavLM's attention takes a float bias and a bool mask; torch says so once per process
    warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")


def _folder(ckpt: Path | str) -> Path:
    folder = Path(ckpt)
    if folder.name in WEIGHTS:
        folder = folder.parent
    if not (folder / "config.json").is_file():
        raise SslbenchError(
            f"{folder}: no folder in Hugging Face's format (no config.json in it); give the folder that "
            "holds config.json and model.safetensors"
        )
    return folder


def _model_type(values: dict[str, Any], where: Path) -> str:
    found = values.get("model_type") if isinstance(values, dict) else None
    if found not in MODELS:
        raise SslbenchError(
            f"{where}: model_type {found!r} is no speech encoder known here; known: {', '.join(MODELS)}"
        )
    return str(found)


def _config_class(model_type: str) -> Any:
    import transformers

    return getattr(transformers, f"{MODELS[model_type]}Config")


def _model_class(model_type: str) -> Any:
    import transformers

    return getattr(transformers, f"{MODELS[model_type]}Model")


def _settings(path: Path) -> HFConfig:
    if path.suffix == ".yaml":
        return configs.load(HFConfig, path)
    file = path / "config.json" if path.is_dir() else path
    values = read_json(file)
    model_type = _model_type(values, file)
    found = {key: value for key, value in values.items() if key != "model_type"}
    return configs.build(
        HFConfig,
        {"model_type": model_type, "settings": found, "preprocessor": _preprocessor(file.parent)},
        where=str(file),
    )


def _preprocessor(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return {}
    values: dict[str, Any] = read_json(path)
    rate = values.get("sampling_rate", 16000)
    if rate != 16000:
        raise SslbenchError(f"{path}: the model reads audio at {rate} Hz; only 16000 Hz is supported")
    return values


def _pretrained(folder: Path) -> Any:
    """The encoder with all of its weights; heads of a recognizer or of pretraining are left out."""
    model_type = _model_type(read_json(folder / "config.json"), folder / "config.json")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise SslbenchError(
            f"{folder}: holds no {WEIGHTS[0]} or {WEIGHTS[2]}; complete it, or measure its cost with "
            "random weights through model_config"
        )
    try:
        with _quiet():
            model, info = _model_class(model_type).from_pretrained(
                str(folder), local_files_only=True, output_loading_info=True, weights_only=True
            )
    except Exception as error:  # transformers raises many kinds for damaged files
        raise CorruptFileError(
            f"{folder}: its weights cannot be read ({type(error).__name__}: {_first_line(error)}); "
            "copy it again"
        ) from None
    prefix = f"{model.base_model_prefix}."
    # masked_spec_embed only serves training and is absent where the checkpoint trains without it
    wrong = [f"missing {key}" for key in sorted(info["missing_keys"]) if key != "masked_spec_embed"]
    wrong += [f"{item[0]} of another shape" for item in info.get("mismatched_keys", ())]
    children = {name for name, _ in model.named_children()}
    for key in sorted(info["unexpected_keys"]):  # other first names are heads, which no upstream needs
        if key.removeprefix(prefix).split(".")[0] in children:
            wrong.append(f"unexpected {key}")
    if wrong:
        more = f"; and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise SslbenchError(
            f"{folder}: its weights do not fit its config.json: {'; '.join(wrong[:6])}{more}; "
            "take both from the same model"
        )
    return model.float()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and load reports; what matters in them is checked by us."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:160]
