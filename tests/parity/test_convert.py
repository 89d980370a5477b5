"""Converted checkpoints against the code that they come from: every layer, alone and in a padded batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sslbench import check, cli
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.upstreams import load_upstream

CONV = [(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2
LIMIT = 1e-4
WAVS = [check.clip(samples) * 3 for samples in (16000, 9000, 5000)]
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


def convert(source: Path, out: Path, *arguments: str) -> Any:
    """Through the command line, as users do; the family's upstream with the result."""
    assert cli.main(["convert", *arguments, str(source), "--out", str(out)]) == 0
    return load_upstream(UpstreamCheckpoint.load(out).family, ckpt=out)


def states_of(upstream: Any, wavs: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        states: list[torch.Tensor] = upstream(wavs)["hidden_states"]
    return states


def error_against(upstream: Any, reference: list[torch.Tensor], wav: torch.Tensor) -> float:
    """Largest difference of any layer: the clip alone, and beside a longer one, against the original."""
    beside = torch.cat([wav, check.clip(7000)])
    worst = 0.0
    for states in (states_of(upstream, [wav]), states_of(upstream, [beside, wav])):
        assert len(states) == len(reference)
        for ours, theirs in zip(states, reference, strict=True):
            frames = theirs.shape[1]
            worst = max(worst, float((ours[-1:, :frames, : theirs.shape[2]] - theirs).abs().max()))
    return worst


def disturb(upstream: Any) -> None:
    """One bias of the middle layer or stack, which LayerNorm does not undo."""
    layers = upstream.model.encoder
    layer = layers.layers[1] if hasattr(layers, "layers") else layers.encoders[0].layers[0]
    module = layer.fc1 if hasattr(layer, "fc1") else layer.feed_forward2.in_proj
    with torch.no_grad():
        module.weight[0] += 0.5


def expect_parity(upstream: Any, reference: list[torch.Tensor], wav: torch.Tensor) -> None:
    assert error_against(upstream, reference, wav) <= LIMIT
    disturb(upstream)
    assert error_against(upstream, reference, wav) > LIMIT  # the control: one disturbed weight is seen


def shaken(model: Any) -> Any:
    """No bias stays 0 and no scale 1, so that an omitted term shows up."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return model.eval()


# --- k2SSL: recorded outputs of icefall's code


def k2ssl_file(folder: Path, where: Path, **others: Any) -> Path:
    """As icefall's save_checkpoint writes it: weights, their average, and the arguments beside them."""
    state = load_file(folder / "state.safetensors")
    args = json.loads((folder / "meta.json").read_text())["args"]
    average = {key: value * 0.5 for key, value in state.items()}
    content = {"model": state, "model_avg": average, "optimizer": {"state": {}}, "exp_dir": Path("exp/a")}
    content |= {"env_info": {"torch-version": torch.__version__}, "batch_idx_train": 7}
    torch.save({**content, **args, **others}, where / "epoch-1.pt")
    return where / "epoch-1.pt"


@pytest.mark.parametrize("name", ["zipformer_tiny", "hubert_tiny_ce", "hubert_tiny_nce"])
def test_k2ssl_checkpoint_gives_icefall_s_outputs(name: str, shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "fixtures" / name
    io = load_file(folder / "io.safetensors")
    upstream = convert(k2ssl_file(folder, tmp_path), tmp_path / "ours", "--from", "k2ssl")
    first = {key: value for key, value in io.items() if key.startswith("eval_nomask.")}
    if (
        name == "zipformer_tiny"
    ):  # input, the stacks, and the stitched output; channels beyond a stack's are 0
        reference = [first["eval_nomask.post_extract_proj"][:1]]
        reference += [first[f"eval_nomask.encoder.encoders.{i}"].transpose(0, 1)[:1] for i in range(4)]
    else:  # the input of the first layer is not recorded
        reference = [first[f"eval_nomask.encoder.layers.{i}"].transpose(0, 1)[:1, :63] for i in range(3)]
        reference.insert(0, states_of(upstream, [io["in.source"][0]])[0][:, :63])
    if name == "zipformer_tiny":
        reference.append(first["eval_nomask.x"][:1])
    expect_parity(upstream, reference, io["in.source"][0])


def test_k2ssl_average_and_arguments_from_a_file(shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "fixtures" / "zipformer_tiny"
    source = k2ssl_file(folder, tmp_path)
    convert(source, tmp_path / "average", "--from", "k2ssl", "--use-average")
    found = UpstreamCheckpoint.load(tmp_path / "average")
    assert found.card["origin"]["which"] == "model_avg"
    state = load_file(folder / "state.safetensors")
    assert all(torch.equal(found.state[key], value * 0.5) for key, value in state.items())
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, source)
    given = ("--model_config", str(folder / "meta.json"))
    convert(source, tmp_path / "given", "--from", "k2ssl", *given)
    other = UpstreamCheckpoint.load(tmp_path / "given")
    assert other.config == found.config
    assert other.weights == "imported"


@pytest.mark.parametrize("preset", ["zipformer_base", "zipformer_large"])
def test_full_size_settings_are_read_from_shapes(preset: str, tmp_path: Path) -> None:
    from sslbench.convert.source import Source
    from sslbench.upstream.zipformer.convert import CONVERTER
    from sslbench.upstreams import build_model

    with torch.device("meta"):
        model = build_model(preset)
    imported = CONVERTER.readers["k2ssl"](Source("k2ssl", tmp_path, model.state_dict()))
    for key in ("downsampling", "layers", "dims", "ffn_dims", "kernels", "heads", "pos_dim", "num_units"):
        assert imported.config[key] == getattr(model.config, key), key
    assert "normalize" in imported.assumed


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


def extracted(family: str, wav: torch.Tensor, where: Path) -> list[np.ndarray[Any, Any]]:
    """The arrays that `sslbench extract` writes for a converted checkpoint in `where/ours`."""
    import soundfile

    soundfile.write(where / "a.wav", wav.numpy(), 16000, subtype="FLOAT")
    arguments = [str(where / "a.wav"), "--ckpt", str(where / "ours"), "--out", str(where / "f.npz")]
    assert cli.main(["extract", family, *arguments]) == 0
    arrays = np.load(where / "f.npz")
    return [arrays[f"a.layer{layer:02d}"] for layer in range(len(arrays.files))]


def test_extract_on_a_converted_hf_folder_equals_transformers(tmp_path: Path) -> None:
    model, folder = hf_folder(tmp_path / "hf", False, **HF_SMALL)
    convert(folder, tmp_path / "ours", "--from", "hf")
    layers = extracted("hubert_k2ssl", WAVS[0], tmp_path)
    for found, expected in zip(layers, hf_states(model, WAVS[0], False), strict=True):
        assert found.shape == (50, 32)
        assert np.abs(found[:49] - expected[0].numpy()).max() <= LIMIT


def test_extract_on_a_converted_zipformer_equals_icefall(shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "fixtures" / "zipformer_tiny"
    io = load_file(folder / "io.safetensors")
    convert(k2ssl_file(folder, tmp_path), tmp_path / "ours", "--from", "k2ssl")
    layers = extracted("zipformer", io["in.source"][0], tmp_path)
    assert np.abs(layers[-1][:63] - io["eval_nomask.x"][0].numpy()).max() <= LIMIT
    for index in range(4):
        expected = io[f"eval_nomask.encoder.encoders.{index}"][:, 0].numpy()  # (F, D)
        assert np.abs(layers[index + 1][:63, : expected.shape[1]] - expected).max() <= LIMIT
        assert not layers[index + 1][:, expected.shape[1] :].any()
