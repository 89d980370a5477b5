"""Converted checkpoints against the code that they come from: every layer, alone and in a padded batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.foreign import LIMIT, WAVS, convert, expect_parity, extracted, shaken, states_of
from safetensors.torch import load_file, save_file

from sslbench import cli
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.io import sha256_file
from sslbench.upstreams import load_upstream

BASE_YAML = {  # every line of `model:` in fairseq's hubert_base_librispeech.yaml but `_name`
    "label_rate": 50.0,
    "skip_masked": False,
    "skip_nomask": False,
    "mask_prob": 0.80,
    "extractor_mode": "default",
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
    "final_dim": 256,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.1,
    "dropout_features": 0.1,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "feature_grad_mult": 0.1,
    "untie_final_proj": True,
    "activation_dropout": 0.0,
}
SMALL = {
    **BASE_YAML,
    "encoder_layers": 3,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "conv_feature_layers": "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2",
    "final_dim": 8,
}


# --- transformers


def hf_folder(where: Path, large: bool, **settings: Any) -> tuple[Any, Path]:
    transformers = pytest.importorskip("transformers")
    if large:
        settings |= {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
    torch.manual_seed(0)
    model = shaken(transformers.HubertModel(transformers.HubertConfig(**settings)))
    model.save_pretrained(where)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=large).save_pretrained(where)
    return model, where


def hf_states(model: Any, wav: torch.Tensor, normalize: bool) -> list[torch.Tensor]:
    inputs = torch.nn.functional.layer_norm(wav, wav.shape) if normalize else wav
    with torch.no_grad():
        out = model(inputs[None], output_hidden_states=True)
    return [*out.hidden_states[:-1], out.last_hidden_state]


HF_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
HF_LARGE = {"hidden_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 16, "intermediate_size": 4096}


@pytest.mark.parametrize(
    ("large", "settings"),
    [
        (False, HF_SMALL),
        (True, HF_SMALL),
        pytest.param(False, {}, marks=pytest.mark.slow),
        pytest.param(True, HF_LARGE, marks=pytest.mark.slow),
    ],
    ids=["small-base", "small-large", "base", "large-4-layers"],
)
def test_hf_folder(large: bool, settings: dict[str, Any], tmp_path: Path) -> None:
    model, folder = hf_folder(tmp_path / "hf", large, **settings)
    upstream = convert(folder, tmp_path / "ours", "--from", "hf")
    expect_parity(upstream, hf_states(model, WAVS[0], normalize=large), WAVS[0])


def test_card_names_the_weights_that_were_read(tmp_path: Path) -> None:
    """In the order in which transformers looks; an index is followed, a stray file is not."""
    model, folder = hf_folder(tmp_path / "hf", False, **HF_SMALL)
    convert(folder, tmp_path / "ours", "--from", "hf")
    origin = UpstreamCheckpoint.load(tmp_path / "ours").card["origin"]
    file = folder / "model.safetensors"
    assert (origin["file"], origin["sha256"]) == (file.name, sha256_file(file))
    file.rename(folder / "adapter.safetensors")  # sorts first and is none of the model's
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    convert(folder, tmp_path / "bin", "--from", "hf")
    origin = UpstreamCheckpoint.load(tmp_path / "bin").card["origin"]
    assert (origin["file"], origin["sha256"]) == (
        "pytorch_model.bin",
        sha256_file(folder / "pytorch_model.bin"),
    )
    (folder / "pytorch_model.bin").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    seen = []
    for change in (False, True):
        if change:
            last = sorted(folder.glob("model-*.safetensors"))[-1]
            save_file({key: value + 1 for key, value in load_file(last).items()}, last)
        convert(folder, tmp_path / f"shards{change}", "--from", "hf")
        seen.append(UpstreamCheckpoint.load(tmp_path / f"shards{change}").card["origin"])
        upstream = load_upstream("hf", ckpt=folder)
        assert upstream.weights_sha256 == seen[-1]["sha256"]
    assert seen[0]["file"] == seen[1]["file"] == "model.safetensors.index.json"
    assert seen[0]["sha256"] != seen[1]["sha256"]


@pytest.mark.parametrize("large", [False, True])
def test_there_and_back_changes_no_bit(large: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model, folder = hf_folder(tmp_path / "hf", large, **HF_SMALL)
    convert(folder, tmp_path / "ours", "--from", "hf")
    back = tmp_path / "back"
    arguments = ["--from", "sslbench", "--to", "hf", str(tmp_path / "ours"), "--out", str(back)]
    assert cli.main(["convert", *arguments]) == 0
    before, after = load_file(folder / "model.safetensors"), load_file(back / "model.safetensors")
    assert set(before) == set(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    again, info = transformers.HubertModel.from_pretrained(back, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for key in HF_SMALL | {
        "do_stable_layer_norm": 0,
        "feat_extract_norm": 0,
        "conv_bias": 0,
        "conv_stride": 0,
    }:
        assert list(np.atleast_1d(getattr(again.config, key))) == list(
            np.atleast_1d(getattr(model.config, key))
        )
    for one, other in zip(
        hf_states(model, WAVS[0], False), hf_states(again.eval(), WAVS[0], False), strict=True
    ):
        assert torch.equal(one, other)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(back)
    assert extractor.do_normalize is large


def test_recognizer_s_head_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.HubertConfig(**HF_SMALL, vocab_size=10, mask_time_prob=0.0)
    transformers.HubertForCTC(config).save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours", "--from", "hf")
    shown = capsys.readouterr().out
    assert "left out: lm_head.bias, lm_head.weight" in shown
    assert "nothing states mask_emb; taken as zeros" in shown


# --- fairseq's names, through torchaudio's model; s3prl's own copy of fairseq's model


def fairseq_state(model: Any) -> dict[str, torch.Tensor]:
    """torchaudio's names to fairseq's, the inverse of torchaudio's `import_fairseq_model`."""
    pairs = [
        ("encoder.feature_projection.layer_norm", "layer_norm"),
        ("encoder.feature_projection.projection", "post_extract_proj"),
        ("encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original0", "POS.weight_g"),
        ("encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1", "POS.weight_v"),
        ("encoder.transformer.pos_conv_embed.conv", "POS"),
        ("POS", "encoder.pos_conv.0"),
        ("encoder.transformer.layer_norm", "encoder.layer_norm"),
        ("encoder.transformer.layers", "encoder.layers"),
        (".attention.", ".self_attn."),
        (".feed_forward.intermediate_dense.", ".fc1."),
        (".feed_forward.output_dense.", ".fc2."),
    ]
    found = {}
    for key, value in model.state_dict().items():
        for theirs, fairseq in pairs:
            key = key.replace(theirs, fairseq)
        if key.startswith("encoder.layers.") and ".layer_norm." in key:
            key = key.replace(".layer_norm.", ".self_attn_layer_norm.")
        if key.startswith("feature_extractor."):
            key = key.replace(".conv.", ".0.").replace(".layer_norm.", ".2.")
        found[key] = value
    return found


def head(dim: int, final_dim: int, units: int) -> dict[str, torch.Tensor]:
    return {
        "mask_emb": torch.randn(dim),
        "final_proj.weight": torch.randn(final_dim, dim),
        "final_proj.bias": torch.randn(final_dim),
        "label_embs_concat": torch.randn(units, final_dim),
    }


@pytest.mark.slow
def test_fairseq_names_give_torchaudio_s_hubert_base(tmp_path: Path) -> None:
    models = pytest.importorskip("torchaudio.models")
    torch.manual_seed(0)
    model = shaken(models.hubert_base(encoder_layer_drop=0.0))
    cfg = {"model": {"_name": "hubert", **BASE_YAML}, "task": {"normalize": False}}
    state = {**fairseq_state(model), **head(768, 256, 504)}
    torch.save({"args": None, "cfg": cfg, "model": state}, tmp_path / "hubert_base.pt")
    upstream = convert(tmp_path / "hubert_base.pt", tmp_path / "ours", "--from", "fairseq")
    with torch.no_grad():
        layers, _ = model.extract_features(WAVS[0][None])
    reference = [states_of(upstream, WAVS[:1])[0][:, :49], *layers]
    expect_parity(upstream, reference, WAVS[0])


def s3prl_model(large: bool) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    pytest.importorskip("s3prl")
    from sslbench.integrations.s3prl import compat

    compat.apply()
    from s3prl.upstream.hubert import hubert_model as theirs

    mode = "layer_norm" if large else "default"
    model_cfg = {**SMALL, "layer_norm_first": large, "extractor_mode": mode, "conv_bias": large}
    task_cfg = {"normalize": large, "sample_rate": 16000, "label_rate": 50.0}
    torch.manual_seed(0)
    settings = theirs.HubertPretrainingConfig(normalize=large)
    model = theirs.HubertModel(theirs.HubertConfig(**model_cfg), settings, [["a"] * 28])
    return shaken(model), model_cfg, task_cfg


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("format", ["s3prl", "fairseq", "fairseq-args"])
def test_s3prl_s_own_expert_on_the_same_weights(format: str, large: bool, tmp_path: Path) -> None:
    model, model_cfg, task_cfg = s3prl_model(large)
    from s3prl.upstream.hubert.expert import UpstreamExpert

    converted = {"task_cfg": task_cfg, "model_cfg": model_cfg, "model_weight": model.state_dict()}
    torch.save({**converted, "dictionaries_symbols": [["a"] * 28]}, tmp_path / "s3prl.pt")
    with torch.no_grad():
        reference = list(UpstreamExpert(str(tmp_path / "s3prl.pt")).eval()(WAVS[:1])["hidden_states"])
    if format != "s3prl":
        import argparse

        cfg = {"model": {"_name": "hubert", **model_cfg}, "task": task_cfg}
        content: dict[str, Any] = {"model": model.state_dict(), "args": None, "cfg": cfg}
        if format == "fairseq-args":
            content |= {"args": argparse.Namespace(**model_cfg, normalize=large), "cfg": None}
        save_with_a_class_of_fairseq(content, tmp_path / "fairseq.pt")
    source = tmp_path / ("s3prl.pt" if format == "s3prl" else "fairseq.pt")
    upstream = convert(source, tmp_path / "ours", "--from", format.removesuffix("-args"))
    assert upstream.model.config.normalize is large
    expect_parity(upstream, reference, WAVS[0])


def save_with_a_class_of_fairseq(content: dict[str, Any], path: Path) -> None:
    """fairseq's files hold its Dictionary objects; the module exists only while the file is written."""
    import sys
    from types import ModuleType

    names = ["fairseq", "fairseq.data", "fairseq.data.dictionary"]
    modules = {name: ModuleType(name) for name in names}
    dictionary = type("Dictionary", (), {"__module__": names[-1]})
    modules[names[-1]].Dictionary = dictionary  # type: ignore[attr-defined]
    made = dictionary()
    made.symbols = ["<s>", "0"]
    sys.modules.update(modules)
    try:
        torch.save({**content, "task_state": {"dictionaries": [made]}}, path)
    finally:
        for name in names:
            del sys.modules[name]


def test_omegaconf_configuration_is_read_without_omegaconf_s_code(tmp_path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    model, model_cfg, task_cfg = s3prl_model(False)
    cfg = omegaconf.OmegaConf.create({"model": model_cfg, "task": task_cfg})
    torch.save({"model": model.state_dict(), "cfg": cfg}, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "ours", "--from", "fairseq")
    found = UpstreamCheckpoint.load(tmp_path / "ours")
    assert (found.config["layers"], found.config["heads"], found.config["num_units"]) == (3, 4, 28)
    assert "assumed" not in found.card


# --- the command line on the result


def test_extract_on_a_converted_hf_folder_equals_transformers(tmp_path: Path) -> None:
    model, folder = hf_folder(tmp_path / "hf", False, **HF_SMALL)
    convert(folder, tmp_path / "ours", "--from", "hf")
    layers = extracted("hubert_k2ssl", WAVS[0], tmp_path)
    for found, expected in zip(layers, hf_states(model, WAVS[0], False), strict=True):
        assert found.shape == (50, 32)
        assert np.abs(found[:49] - expected[0].numpy()).max() <= LIMIT
