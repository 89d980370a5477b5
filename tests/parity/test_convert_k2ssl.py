"""k2SSL's checkpoints against recorded outputs of icefall's code, and how their settings are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.foreign import LIMIT, convert, expect_parity, extracted, k2ssl_file, states_of
from safetensors.torch import load_file

from sslbench import cli, registry
from sslbench import config as configs
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.convert.source import Source
from sslbench.errors import SslbenchError
from sslbench.io import write_yaml
from sslbench.upstream.zipformer.convert import CONVERTER
from sslbench.upstreams import build_model, load_upstream, model_class


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
    with torch.device("meta"):
        model = build_model(preset)
    imported = CONVERTER.readers["k2ssl"](Source("k2ssl", tmp_path, model.state_dict()))
    keys = ("downsampling", "layers", "dims", "ffn_dims", "kernels", "heads", "pos_dim", "num_units")
    for key in (*keys, "unmasked_dims", "normalize"):
        assert imported.config[key] == getattr(model.config, key), key
    assert set(imported.assumed) == {"heads", "unmasked_dims", "normalize"}


LISTINGS = {
    "zipformer_base": "zipformer",
    "zipformer_large": "zipformer",
    "zipformer_pretrain_defaults": "zipformer",
    "hubert_base_ce": "hubert_k2ssl",
    "hubert_base_nce": "hubert_k2ssl",
    "hubert_large_ce": "hubert_k2ssl",
    "hubert_large_nce": "hubert_k2ssl",
}


@pytest.mark.parametrize("stated", [True, False], ids=["arguments", "shapes"])
@pytest.mark.parametrize("listing", LISTINGS)
def test_full_size_models_come_from_icefall_s_arguments_or_from_shapes(
    listing: str, stated: bool, shared_dir: Path, tmp_path: Path
) -> None:
    folder = shared_dir / "fixtures" / "listings"
    rows = [line.split("\t") for line in (folder / f"{listing}.txt").read_text().splitlines()]
    shapes = {row[0]: json.loads(row[1]) for row in rows if not row[0].startswith("#")}
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    arguments = json.loads((folder / f"{listing}.kwargs.json").read_text())["args"] if stated else {}
    family = LISTINGS[listing]
    reader = registry.converters()[family].load().readers["k2ssl"]
    imported = reader(Source("k2ssl", tmp_path, state, arguments))
    cls = model_class(family)
    with torch.device("meta"):
        model = cls(configs.build(cls.config_class, imported.config, listing))
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == shapes


def test_one_value_for_all_stacks_as_icefall_takes_it(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = build_model("zipformer_base").state_dict()

    def settings(**arguments: Any) -> dict[str, Any]:
        source = Source("k2ssl", tmp_path, state, arguments)
        found: dict[str, Any] = CONVERTER.readers["k2ssl"](source).config
        return found

    found = settings(num_heads="4", cnn_module_kernel=31, query_head_dim="32,32,32,32,32,32")
    assert (found["heads"], found["kernels"], found["query_head_dim"]) == ([4] * 6, [31] * 6, 32)
    with pytest.raises(SslbenchError, match="query_head_dim '32,32,24' differs between stacks"):
        settings(query_head_dim="32,32,24")


def test_bare_weights_have_no_average(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_dir / "fixtures" / "zipformer_tiny"
    torch.save(load_file(folder / "state.safetensors"), tmp_path / "bare.pt")
    given = [str(tmp_path / "bare.pt"), "--from", "k2ssl", "--model_config", str(folder / "meta.json")]
    assert cli.main(["convert", *given, "--use-average", "--out", str(tmp_path / "no")]) == 2
    assert "holds one set of weights" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert cli.main(["convert", *given, "--out", str(tmp_path / "ours")]) == 0
    assert UpstreamCheckpoint.load(tmp_path / "ours").card["origin"]["which"] == "the only weights"


@pytest.mark.parametrize("name", ["zipformer_tiny", "hubert_tiny_ce"])
def test_a_fine_tuned_recognizer_gives_its_encoder(
    name: str, shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As icefall's `finetune.py` saves it: the pretrained model without its head as `encoder`."""
    folder = shared_dir / "fixtures" / name
    state = load_file(folder / "state.safetensors")
    tuned = {f"encoder.{key}": value for key, value in state.items() if "final_proj" not in key}
    tuned |= {"decoder.embedding.weight": torch.zeros(2), "joiner.encoder_proj.weight": torch.zeros(2)}
    source = k2ssl_file(folder, tmp_path, model=tuned)
    upstream = convert(source, tmp_path / "ours", "--from", "k2ssl")
    assert "left out: decoder.embedding.weight, joiner.encoder_proj.weight" in capsys.readouterr().out
    io = load_file(folder / "io.safetensors")
    error = states_of(upstream, [io["in.source"][0]])[-1][0, :63] - io["eval_nomask.x"][0]
    assert float(error.abs().max()) <= LIMIT
    source = k2ssl_file(folder, tmp_path, model={**tuned, "encoder.surplus": torch.zeros(1)})
    assert cli.main(["convert", "--from", "k2ssl", str(source), "--out", str(tmp_path / "no")]) == 2
    assert "unexpected surplus" in capsys.readouterr().err


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


def load(folder: Path, **settings: Any) -> Any:
    """The converted checkpoint with settings over its own."""
    family = UpstreamCheckpoint.load(folder).family
    write_yaml(folder.parent / "settings.yaml", settings)
    return load_upstream(family, ckpt=folder, model_config=folder.parent / "settings.yaml")


@pytest.mark.parametrize("name", ["zipformer_tiny", "hubert_tiny_ce", "hubert_tiny_nce"])
def test_compat_for_a_converted_checkpoint_gives_icefall_s_padded_batch(
    name: str, shared_dir: Path, tmp_path: Path
) -> None:
    """Alone both settings give the original's features; padded only `compat: k2ssl` does."""
    folder = shared_dir / "fixtures" / name
    io = load_file(folder / "io.safetensors")
    mended = convert(k2ssl_file(folder, tmp_path), tmp_path / "ours", "--from", "k2ssl")
    published = load(tmp_path / "ours", compat="k2ssl")
    wanted = io["eval_nomask.x"]
    wavs = [io["in.source"][0], io["in.source"][1, :14_537]]
    for upstream in (mended, published):
        assert float((states_of(upstream, wavs[:1])[-1][0, :63] - wanted[0]).abs().max()) <= LIMIT
    padded = {
        key: float((states_of(upstream, wavs)[-1][1, :45] - wanted[1, :45]).abs().max())
        for key, upstream in (("published", published), ("mended", mended))
    }
    assert padded["published"] <= LIMIT
    assert padded["mended"] > 100 * LIMIT  # the control: the leak is there, and is closed by default


def test_settings_go_before_a_checkpoint_s_own_and_the_weights_still_have_to_fit(
    shared_dir: Path, tmp_path: Path
) -> None:
    folder = shared_dir / "fixtures" / "zipformer_tiny"
    wav = load_file(folder / "io.safetensors")["in.source"][:1]
    plain = states_of(convert(k2ssl_file(folder, tmp_path), tmp_path / "ours", "--from", "k2ssl"), [wav[0]])
    stitched = states_of(load(tmp_path / "ours", features="stitched"), [wav[0]])
    widths = [int(state.abs().amax((0, 1)).count_nonzero()) for state in plain]
    assert widths == [32, 32, 48, 64, 40, 64]
    assert [int(state.abs().amax((0, 1)).count_nonzero()) for state in stitched] == [32, 32, 48, 64, 64, 64]
    for one, other, width in zip(plain, stitched, widths, strict=True):
        assert torch.equal(one[..., :width], other[..., :width])
    with pytest.raises(SslbenchError, match="no setting 'feature'"):
        load(tmp_path / "ours", feature="stitched")
    with pytest.raises(SslbenchError, match=r"missing encoder\.encoders\.0\.layers\.1\."):
        load(tmp_path / "ours", layers=[2, 1, 1, 1])
