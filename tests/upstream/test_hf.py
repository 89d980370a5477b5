"""Hugging Face folders as upstreams: the contract, transformers' own numbers, and damaged folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sslbench import check
from sslbench.errors import SslbenchError
from sslbench.upstream.hf import padding
from sslbench.upstream.hf.fbank import StackedFbank
from sslbench.upstreams import load_upstream

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
CNN = {**SMALL, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
LARGE = {**CNN, "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
DATA2VEC = {key: value for key, value in CNN.items() if key != "num_conv_pos_embeddings"}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wav2vec2": ("wav2vec2", "Wav2Vec2", CNN),
    "wav2vec2_large": ("wav2vec2", "Wav2Vec2", LARGE),
    "hubert": ("hubert", "Hubert", CNN),
    "wavlm": ("wavlm", "WavLM", CNN),
    "wavlm_large": ("wavlm", "WavLM", LARGE),
    "unispeech_sat": ("unispeech-sat", "UniSpeechSat", CNN),
    "data2vec": ("data2vec-audio", "Data2VecAudio", {**DATA2VEC, "conv_pos_kernel_size": 9}),
    "conformer": ("wav2vec2-conformer", "Wav2Vec2Conformer", CNN),
    "bert": ("wav2vec2-bert", "Wav2Vec2Bert", SMALL),
}
LEAKING = ("wav2vec2", "hubert", "wavlm", "unispeech_sat", "conformer", "data2vec")


def model_of(case: str) -> Any:
    _, prefix, settings = CASES[case]
    torch.manual_seed(0)
    config = getattr(transformers, f"{prefix}Config")(**settings)
    model = getattr(transformers, f"{prefix}Model")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # no bias stays 0, so that an omitted term shows
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return model


def folder_of(case: str, where: Path, **preprocessor: Any) -> Path:
    model_of(case).save_pretrained(where)
    (where / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return where


def padding_error(upstream: nn.Module) -> float:
    """Largest difference of any layer's valid frames alone and in a batch."""
    wavs = [check.clip(samples) for samples in (16000, 7000, 3999, 400)]
    worst = 0.0
    with torch.no_grad():
        together = upstream(wavs)["hidden_states"]
        for row, wav in enumerate(wavs):
            frames = -(-len(wav) // 320)
            for one, many in zip(upstream([wav])["hidden_states"], together, strict=True):
                worst = max(worst, float((one[0] - many[row, :frames]).abs().max()))
    return worst


@pytest.mark.parametrize("case", CASES)
def test_folder_gives_exact_frames_and_is_padding_safe(case: str, tmp_path: Path) -> None:
    upstream = load_upstream("hf", ckpt=folder_of(case, tmp_path))
    assert upstream.weights == "imported"
    assert upstream.get_downsample_rates("hidden_states") == 320
    for samples in (1, 399, 401, 561, 720, 721, 961, 1040, 15999, 16001):
        states = upstream([check.clip(samples)])["hidden_states"]
        assert {tuple(state.shape) for state in states} == {(1, -(-samples // 320), 32)}
        assert len(states) == 3
    assert padding_error(upstream) <= 1e-4


@pytest.mark.parametrize("case", LEAKING)
def test_without_the_mend_padding_leaks(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslbench.upstream.hf.model.mend", lambda model: padding.Extent())
    assert padding_error(load_upstream("hf", ckpt=folder_of(case, tmp_path))) > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_every_point_of_the_contract_holds(case: str, tmp_path: Path) -> None:
    folder = folder_of(case, tmp_path)
    points = check.check(lambda frozen: load_upstream("hf", ckpt=folder, frozen=frozen))
    assert [point for point in points if not point.ok] == []


@pytest.mark.parametrize("case", [case for case in CASES if case != "bert"])
@pytest.mark.parametrize("normalize", [True, False])
def test_unpadded_clip_equals_transformers(case: str, normalize: bool, tmp_path: Path) -> None:
    upstream = load_upstream("hf", ckpt=folder_of(case, tmp_path, do_normalize=normalize))
    wav = check.clip(16000) * 3 + 0.1
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        expected = model_of(case)(inputs, output_hidden_states=True)
        states = upstream([wav])["hidden_states"]
    reference = [*expected.hidden_states[:-1], expected.last_hidden_state]
    for state, other in zip(states, reference, strict=True):
        torch.testing.assert_close(state[:, :49], other, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        upstream.model.encoder.encoder.layers[0].final_layer_norm.bias[0] += 0.5
    assert not torch.allclose(upstream([wav])["hidden_states"][-1][:, :49], reference[-1], atol=1e-4)


def test_bert_reads_what_its_feature_extractor_gives(tmp_path: Path) -> None:
    wav = check.clip(16100)
    extractor = transformers.SeamlessM4TFeatureExtractor()
    expected = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt")
    features, frames = StackedFbank({}, 160)(wav[None], torch.tensor([16100]))
    assert int(frames) == int(expected.attention_mask.sum())
    torch.testing.assert_close(features, expected.input_features[:, : int(frames)], atol=2e-4, rtol=1e-4)
    with torch.no_grad():
        reference = model_of("bert")(**expected, output_hidden_states=True).hidden_states
        states = load_upstream("hf", ckpt=folder_of("bert", tmp_path))([wav])["hidden_states"]
    for state, other in zip(states, reference, strict=True):
        count = int(frames)
        torch.testing.assert_close(state[:, :count], other[:, :count], atol=1e-3, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:.*RANDOM")
def test_configuration_without_weights_is_random_and_seeded(tmp_path: Path) -> None:
    folder = folder_of("wavlm", tmp_path)
    (folder / "model.safetensors").unlink()
    wav = check.clip(3000)
    first, again, other = (
        load_upstream("hf", model_config=path, seed=seed)([wav])["last_hidden_state"]
        for path, seed in ((folder, 0), (folder / "config.json", 0), (folder, 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(SslbenchError, match="holds no model"):
        load_upstream("hf", ckpt=folder)
    with pytest.raises(SslbenchError, match="give one of them"):
        load_upstream("hf", ckpt=folder, model_config=folder)


def test_half_precision_bin_is_read_as_float(tmp_path: Path) -> None:
    folder = folder_of("hubert", tmp_path)
    state = {key: value.half() for key, value in model_of("hubert").state_dict().items()}
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    upstream = load_upstream("hf", ckpt=folder)
    assert {parameter.dtype for parameter in upstream.parameters()} == {torch.float32}
    difference = (
        upstream.model.encoder.feature_projection.projection.weight
        - state["feature_projection.projection.weight"]
    )
    assert float(difference.abs().max()) == 0.0


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def _drop_key(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["encoder.layer_norm.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _fewer_layers(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 1}))


def _truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _poison(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": _Payload(folder / "ran")}, folder / "pytorch_model.bin")


def _rename_type(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "model_type": "whisper"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_key, r"missing encoder\.layer_norm\.weight"),
        (_fewer_layers, r"unexpected encoder\.layers\.1\."),
        (_truncate, "its weights cannot be read"),
        (_poison, "its weights cannot be read"),
        (_rename_type, "model_type 'whisper' is no speech encoder known here"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json in it"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(damage: Any, message: str, tmp_path: Path) -> None:
    folder = folder_of("hubert", tmp_path)
    damage(folder)
    with pytest.raises(SslbenchError, match=message) as caught:
        load_upstream("hf", ckpt=folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "ran").exists()


def test_missing_transformers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SslbenchError, match=r"pip install 'sslbench\[hf\]'"):
        load_upstream("hf", ckpt=tmp_path)


@pytest.mark.slow
def test_wavlm_base_costs_what_the_superb_challenge_measured() -> None:
    from sslbench.profile.macs import count_macs
    from sslbench.profile.workload import build

    macs = count_macs(lambda: build("hf_wavlm_base", None, True))
    assert macs.total_g == pytest.approx(1670, rel=0.01)
    assert macs.counted_on == "meta"
    assert macs.unlisted == []
