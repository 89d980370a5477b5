"""Damaged, foreign and hostile checkpoints: one line says what is wrong; nothing is written or run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sslbench import cli
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.convert import FORMATS, unpickle
from sslbench.convert.arguments import conv_layers, integers, truth
from sslbench.convert.source import READERS
from sslbench.errors import SslbenchError
from sslbench.upstream.hubert_k2ssl.model import Hubert, HubertConfig
from sslbench.upstreams import load_upstream

ARGS: dict[str, Any] = {
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "conv_feature_layers": "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2",
    "num_classes": [20],
}
CONFIG: dict[str, Any] = {
    "layers": 2,
    "dim": 32,
    "ffn_dim": 48,
    "heads": 4,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "conv_layers": conv_layers(ARGS["conv_feature_layers"]),
    "num_units": 20,
}


def content() -> dict[str, Any]:
    torch.manual_seed(0)
    return {"model": Hubert(HubertConfig(**CONFIG)).state_dict(), **ARGS}


class Payload:
    """Pickles as a call; unpickled the ordinary way it makes the file."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def refused(capsys: pytest.CaptureFixture[str], source: Path, *arguments: str) -> str:
    """The one line of the error; nothing may have been written."""
    out = source.parent / "out"
    assert cli.main(["convert", *arguments, str(source), "--out", str(out)]) == 2
    shown = capsys.readouterr().err.strip()
    assert "\n" not in shown
    assert not out.exists()
    return shown


@pytest.mark.parametrize("where", ["beside the weights", "among the weights", "legacy format"])
@pytest.mark.parametrize("kind", ["os", "builtins", "path", "subprocess", "torch"])
def test_code_in_a_checkpoint_is_never_run(
    kind: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import subprocess

    ran = tmp_path / "ran"
    payload = {
        "os": Payload(os.mkdir, str(ran)),
        "builtins": Payload(eval, f"open({str(ran)!r}, 'w')"),
        "path": Payload(Path.touch, Path(ran)),
        "torch": Payload(torch.hub.set_dir, str(ran)),
        "subprocess": Payload(subprocess.check_call, ["touch", str(ran)]),
    }[kind]
    holder = content()
    (holder["model"] if where == "among the weights" else holder)["x"] = payload
    source = tmp_path / "a.pt"
    torch.save(holder, source, _use_new_zipfile_serialization=where != "legacy format")
    before = torch.hub.get_dir()
    message = refused(capsys, source, "--from", "k2ssl")
    assert "nothing of it was run" in message
    assert not ran.exists()
    assert torch.hub.get_dir() == before
    torch.load(source, weights_only=False)  # the control: the payload does work
    assert ran.exists() or torch.hub.get_dir() == str(ran)
    torch.hub.set_dir(before)


def test_a_stand_in_names_its_class_and_runs_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    settings = type("Settings", (), {"__module__": "fairseq", "__repr__": lambda _: ran.append("x") or "x"})
    monkeypatch.setitem(sys.modules, "fairseq", SimpleNamespace(Settings=settings))
    torch.save({"cfg": settings()}, tmp_path / "a.pt")
    assert repr(unpickle.load(tmp_path / "a.pt")) == "{'cfg': <inert fairseq.Settings>}"
    assert not ran
    assert repr({"cfg": settings()}) == "{'cfg': x}"  # the control: the class's own does run
    assert ran


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("format", ["k2ssl", "fairseq", "s3prl"])
def test_truncated_files_are_named(
    format: str, share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content(), tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data[: int(len(data) * share)])
    message = refused(capsys, tmp_path / "a.pt", "--from", format)
    assert "a.pt" in message
    assert "copy it again" in message


def test_flipped_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    generator = torch.Generator().manual_seed(0)
    start = data.index(b"data.pkl")
    messages = []
    for _ in range(40):
        damaged = bytearray(data)
        position = start + int(torch.randint(6000, (), generator=generator))
        damaged[position] ^= 1 << int(torch.randint(8, (), generator=generator))
        (tmp_path / "b.pt").write_bytes(bytes(damaged))
        try:
            unpickle.load(tmp_path / "b.pt")
        except SslbenchError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert not any("\n" in message for message in messages)


def _lack(holder: dict[str, Any]) -> None:
    del holder["model"]["encoder.layers.1.fc2.bias"]


def _add(holder: dict[str, Any]) -> None:
    holder["model"]["encoder.layers.2.fc1.weight"] = torch.zeros(2)


def _reshape(holder: dict[str, Any]) -> None:
    holder["model"]["layer_norm.weight"] = torch.zeros(7)


def _wav2vec2(holder: dict[str, Any]) -> None:
    holder["model"]["quantizer.vars"] = torch.zeros(2)


def _other(holder: dict[str, Any]) -> None:
    holder["model"] = {"conv1.weight": torch.zeros(2), "conv1.bias": torch.zeros(2)}


def _conformer(holder: dict[str, Any]) -> None:
    holder["layer_type"] = "conformer"


def _text(holder: dict[str, Any]) -> None:
    holder["conv_feature_layers"] = "__import__('os').getcwd()"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lack, "missing encoder.layers.1.fc2.bias"),
        (_add, "unexpected encoder.layers.2.fc1.weight"),
        (_reshape, "layer_norm.weight is (7,), expected (16,)"),
        (_wav2vec2, "its weights are of no family that is read from k2ssl (hubert_k2ssl, zipformer)"),
        (_other, "they are conv1.weight, conv1.bias"),
        (_conformer, "the model has layer_type 'conformer'"),
        (_text, "is no list of (channels, kernel, stride)"),
        (lambda holder: holder.pop("model"), "has no weights under 'model' (keys: encoder_layers"),
        (lambda holder: holder.update(encoder_layers=3), "missing encoder.layers.2."),
        (lambda holder: holder.update(encoder_attention_heads=5), "must divide by 5 heads"),
        (lambda holder: holder.pop("encoder_attention_heads"), "give --model_config"),
        (lambda holder: holder.update(target_glu=True), "target_glu True"),
        (lambda holder: holder.update(do_normalize="no"), "do_normalize 'no' is neither true nor false"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = content()
    change(holder)
    torch.save(holder, tmp_path / "a.pt")
    assert message in refused(capsys, tmp_path / "a.pt", "--from", "k2ssl")


def test_wrong_format_or_choice_says_which_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.pt"
    torch.save(content(), source)
    assert "lacks task_cfg, model_cfg, model_weight" in refused(capsys, source, "--from", "s3prl")
    assert "without --use_average" in refused(capsys, source, "--from", "k2ssl", "--use-average")
    assert "--use_average is for k2ssl" in refused(capsys, source, "--from", "fairseq", "--use-average")
    assert "no config.json" in refused(capsys, source, "--from", "hf")
    assert "no such file" in refused(capsys, tmp_path / "b.pt", "--from", "k2ssl")
    assert "known: hubert_k2ssl" in refused(capsys, source, "--from", "k2ssl", "--family", "x")
    torch.save([1, 2], source)
    assert "holds a list" in refused(capsys, source, "--from", "k2ssl")


def test_hf_folder_of_another_family_points_to_the_hf_upstream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "wavlm"}))
    assert "holds no model.safetensors" in refused(capsys, folder, "--from", "hf")
    torch.save({"a": torch.zeros(2)}, folder / "pytorch_model.bin")
    assert "'sslbench check hf --ckpt" in refused(capsys, folder, "--from", "hf")
    (folder / "config.json").write_text(json.dumps({"model_type": "hubert", "feat_proj_layer_norm": False}))
    assert "feat_proj_layer_norm False" in refused(capsys, folder, "--from", "hf")


def test_upstreams_name_convert_for_foreign_files(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "a.pt")
    with pytest.raises(SslbenchError, match="sslbench convert"):
        load_upstream("hubert_k2ssl", ckpt=tmp_path / "a.pt")


def test_families_without_a_form_in_hf_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    UpstreamCheckpoint("zipformer", {}, {"x": torch.zeros(1)}).save(tmp_path / "z")
    message = refused(capsys, tmp_path / "z", "--from", "sslbench", "--to", "hf")
    assert "the zipformer family has no form in hf; these have: hubert_k2ssl" in message


def test_an_encoder_without_its_head_says_so_when_pretrained() -> None:
    from sslbench.nn.upstream import PretrainBatch

    model = Hubert(HubertConfig(**{**CONFIG, "predict_layers": []}))
    assert not any(key.startswith(("final_proj", "label_embs")) for key in model.state_dict())
    batch = PretrainBatch(
        torch.randn(1, 4000), torch.tensor([4000]), torch.zeros(1, 12, dtype=torch.int64), ["a"]
    )
    with pytest.raises(SslbenchError, match="imported without its head"):
        model(batch)


@pytest.mark.parametrize("text", ["[(1,2)]", "[1", "f()", "[(1,2,3)] * 10**9", "[(1,2,3)] * 99999", "a"])
def test_layer_texts_are_parsed_not_run(text: str) -> None:
    assert conv_layers("[(4,10,5)] + [(4,3,2)] * 2") == [(4, 10, 5), (4, 3, 2), (4, 3, 2)]
    with pytest.raises(SslbenchError, match="is no list of"):
        conv_layers(text)
    with pytest.raises(SslbenchError, match="is no list of integers"):
        integers(text)


def test_the_text_of_a_switch_is_read_not_its_presence() -> None:
    assert [truth("x", value) for value in (True, 1, 1.0, "True", "true", "1")] == [True] * 6
    assert [truth("x", value) for value in (False, 0, None, "False", "false", "0")] == [False] * 6
    for value in ("", "none", 2, "yes"):
        with pytest.raises(SslbenchError, match="is neither true nor false"):
            truth("x", value)


def test_every_format_has_a_reader() -> None:
    assert set(FORMATS) == {*READERS, "hf"}
