"""transformers' HubertModel folders: names, settings, reading and writing.

Source: transformers `models/hubert/{configuration,modeling}_hubert.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslbench import config as configs
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.convert.arguments import require, truth
from sslbench.convert.family import Imported
from sslbench.convert.source import Source
from sslbench.errors import SslbenchError
from sslbench.io import atomic_path, write_json
from sslbench.upstream.hubert_k2ssl.config import HubertConfig

_SAME = {
    "num_hidden_layers": "layers",
    "hidden_size": "dim",
    "intermediate_size": "ffn_dim",
    "num_attention_heads": "heads",
    "do_stable_layer_norm": "layer_norm_first",
    "feat_extract_norm": "extractor_mode",
    "conv_bias": "conv_bias",
    "num_conv_pos_embeddings": "conv_pos",
    "num_conv_pos_embedding_groups": "conv_pos_groups",
    "hidden_dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "feat_proj_dropout": "dropout_input",
    "layerdrop": "layerdrop",
}
_HEADS = ("lm_head.", "projector.", "classifier.")
_POSITION = "encoder.pos_conv_embed.conv"
_WEIGHT_NORM = {
    f"{_POSITION}.weight_g": f"{_POSITION}.parametrizations.weight.original0",
    f"{_POSITION}.weight_v": f"{_POSITION}.parametrizations.weight.original1",
}


def module_names(config: HubertConfig) -> dict[str, str]:
    """transformers' module and parameter names -> ours; everything below one keeps its name."""
    names = {
        "masked_spec_embed": "mask_emb",
        "feature_projection.layer_norm": "layer_norm",
        "feature_projection.projection": "post_extract_proj",
        _POSITION: "encoder.pos_conv.0",
        "encoder.layer_norm": "encoder.layer_norm",
    }
    for index in range(len(config.conv_layers)):
        layer = f"feature_extractor.conv_layers.{index}"
        names[f"{layer}.conv"] = f"{layer}.0"
        if config.extractor_mode == "layer":
            names[f"{layer}.layer_norm"] = f"{layer}.2.1"
        elif index == 0:
            names[f"{layer}.layer_norm"] = f"{layer}.2"
    for index in range(config.layers):
        layer = f"encoder.layers.{index}"
        names |= {
            f"{layer}.attention": f"{layer}.self_attn",
            f"{layer}.layer_norm": f"{layer}.self_attn_layer_norm",
            f"{layer}.feed_forward.intermediate_dense": f"{layer}.fc1",
            f"{layer}.feed_forward.output_dense": f"{layer}.fc2",
            f"{layer}.final_layer_norm": f"{layer}.final_layer_norm",
        }
    return names


def rename(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors under new module names; those below no known module keep theirs."""
    found = {}
    for key, value in state.items():
        parts = key.split(".")
        for length in range(len(parts), 0, -1):
            module = ".".join(parts[:length])
            if module in names:
                key = ".".join([names[module], *parts[length:]])
                break
        found[key] = value
    return found


def from_hf(source: Source) -> Imported:
    """A HubertModel folder, or a recognizer's, whose head is left out."""
    config, assumed = _settings(source.settings)
    settings = configs.build(HubertConfig, config, f"{source.path}/config.json")
    left_out = sorted(key for key in source.state if key.startswith(_HEADS))
    kept = {
        _WEIGHT_NORM.get(key, key): value.float()
        for key, value in source.state.items()
        if key not in left_out
    }
    state = rename(kept, module_names(settings))
    if "mask_emb" not in state:  # only training reads it, and transformers saves none where it is not trained
        state["mask_emb"] = torch.zeros(settings.dim)
        assumed["mask_emb"] = "zeros"
    return Imported(config, state, left_out, assumed)


def _settings(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    require(values, "hidden_act", "gelu")
    require(values, "feat_extract_activation", "gelu")
    require(values, "feat_proj_layer_norm", True)
    require(values, "conv_pos_batch_norm", False)
    require(values, "layer_norm_eps", 1e-5)
    found = {ours: values[theirs] for theirs, ours in _SAME.items() if theirs in values}
    cnn = [values.get(key) for key in ("conv_dim", "conv_kernel", "conv_stride")]
    if all(isinstance(part, list) for part in cnn):
        found["conv_layers"] = [list(layer) for layer in zip(*cnn, strict=True)]
    found |= {"predict_layers": [], "normalize": truth("do_normalize", values.get("do_normalize", True))}
    return found, {} if "do_normalize" in values else {"normalize": True}


def to_hf(checkpoint: UpstreamCheckpoint, out: Path) -> list[str]:
    """Write a HubertModel folder. Returns the names of tensors that it has no place for: the heads.

    Raises:
        SslbenchError: a HuBERT that transformers cannot build.
    """
    from safetensors.torch import save_file

    config = configs.build(HubertConfig, checkpoint.config, "config.yaml")
    if config.front_end != "waveform" or not config.input_norm or config.conv_layers[-1][0] == config.dim:
        raise SslbenchError(
            "convert: transformers' HubertModel has a waveform CNN, its LayerNorm and a projection; "
            "this model lacks one of them"
        )
    names = module_names(config)
    ours = {mine: theirs for theirs, mine in names.items()}
    heads = sorted(key for key in checkpoint.state if key.startswith(("final_proj.", "label_embs_concat")))
    state = rename({key: value for key, value in checkpoint.state.items() if key not in heads}, ours)
    values = {theirs: getattr(config, mine) for theirs, mine in _SAME.items()}
    channels, kernels, strides = (list(column) for column in zip(*config.conv_layers, strict=True))
    values |= {
        "model_type": "hubert",
        "architectures": ["HubertModel"],
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "num_feat_extract_layers": len(channels),
        "dtype": "float32",
    }
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16000,
        "padding_value": 0.0,
        "do_normalize": config.normalize,
        "return_attention_mask": config.extractor_mode == "layer",
    }
    with atomic_path(out / "model.safetensors") as temporary:
        tensors = {key: value.contiguous() for key, value in state.items()}
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json(out / "preprocessor_config.json", preprocessor)
    write_json(out / "config.json", values)
    return heads
