"""k2SSL's own code as a peer, from a checkout of icefall that the caller has.

Its model files import k2 and icefall's tools at the top. Where those are missing, modules with the few
functions that a training step calls stand in: the four swoosh functions (as written in k2's documentation)
and icefall's autocast helper. Everything else is the original, unmodified.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.errors import SslbenchError

BASE = {
    "icefall_zipformer": {
        "num_encoder_layers": "2,2,3,4,3,2",
        "downsampling_factor": "1,2,4,8,4,2",
        "feedforward_dim": "512,768,1024,1536,1024,768",
        "num_heads": "4,4,4,8,4,4",
        "encoder_dim": "192,256,448,768,448,192",
        "encoder_unmasked_dim": "192,192,256,256,256,192",
        "cnn_module_kernel": "31,31,15,15,15,31",
        "query_head_dim": "32",
        "value_head_dim": "12",
        "pos_head_dim": "4",
        "pos_dim": 48,
    },
    "icefall_hubert": {
        "encoder_layers": 12,
        "encoder_embed_dim": 768,
        "encoder_ffn_embed_dim": 3072,
        "encoder_attention_heads": 12,
        "activation_fn": "gelu",
        "layer_type": "transformer",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "layer_norm_first": False,
        "conv_pos": 128,
        "conv_pos_groups": 16,
        "conv_pos_batch_norm": False,
        "final_dim": 0,
        "target_glu": False,
        "latent_temp": (2, 0.5, 0.999995),
    },
}
COMMON: dict[str, Any] = {
    "label_rate": 50,
    "sample_rate": 16000,
    "extractor_mode": "default",
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
    "conv_bias": False,
    "feature_grad_mult": 0.1,
    "mask_length": 10,
    "mask_prob": 0.8,
    "mask_selection": "static",
    "mask_other": 0,
    "no_mask_overlap": False,
    "mask_min_space": 1,
    "mask_channel_length": 10,
    "mask_channel_prob": 0.0,
    "mask_channel_selection": "static",
    "mask_channel_other": 0,
    "no_mask_channel_overlap": False,
    "mask_channel_min_space": 1,
    "skip_masked": False,
    "skip_nomask": False,
    "checkpoint_activations": False,
    "pred_masked_weight": 1,
    "pred_nomask_weight": 0,
    "loss_weights": [10],
    "required_seq_len_multiple": 2,
    "attn_type": "",
    "pos_enc_type": "abs",
    "logit_temp": 0.1,
    "dropout_input": 0.1,
    "dropout_features": 0.0,
    "num_classes": [504],
    "untie_final_proj": False,
}


def build_icefall(name: str, checkout: str) -> nn.Module:
    """The pretraining model of k2SSL's Base, from the original files.

    Raises:
        SslbenchError: the folder holds no such recipe.
    """
    folder = Path(checkout) / "egs/librispeech/SSL" / name.removeprefix("icefall_")
    if not (folder / "hubert_ce.py").is_file():
        raise SslbenchError(f"--icefall {checkout}: has no {folder.relative_to(checkout)}/hubert_ce.py")
    if importlib.util.find_spec("k2") is None:
        sys.modules["k2"] = _swoosh_module()
    if importlib.util.find_spec("icefall") is None:
        sys.modules["icefall"] = types.ModuleType("icefall")
        utils: Any = types.ModuleType("icefall.utils")
        utils.torch_autocast = lambda device_type="cpu", **kwargs: torch.autocast(device_type, **kwargs)
        sys.modules["icefall.utils"] = utils
    sys.path.insert(0, str(folder))
    model: nn.Module = importlib.import_module("hubert_ce").HubertModel(Namespace(**COMMON, **BASE[name]))
    # Training schedules in their steady state, as ours are measured.
    for module in model.modules():
        if hasattr(module, "batch_count"):
            module.batch_count = 20_000.0
    return model


def _swoosh_module() -> Any:
    module: Any = types.ModuleType("k2")

    def swoosh(x: Tensor, shift: float, offset: float) -> Tensor:
        return F.softplus(x.float() - shift) - 0.08 * x - offset

    def with_slope(x: Tensor, shift: float, offset: float) -> tuple[Tensor, Tensor]:
        return swoosh(x, shift, offset), torch.sigmoid(x.float() - shift) - 0.08

    for side, shape in {"l": (4.0, 0.035), "r": (1.0, 0.313261687)}.items():
        setattr(module, f"swoosh_{side}_forward", lambda x, s=shape: swoosh(x, *s))
        setattr(module, f"swoosh_{side}_forward_and_deriv", lambda x, s=shape: with_slope(x, *s))
    return module
