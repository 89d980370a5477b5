"""The HuBERT family: presets, the upstream contract, and a loss that trains."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch

from sslbench import config as configs
from sslbench import registry
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.errors import SslbenchError
from sslbench.nn.upstream import PretrainBatch, Upstream
from sslbench.upstream.hubert_k2ssl.model import MODEL, Hubert, HubertConfig
from sslbench.upstreams import load_upstream

CONV = [(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2


def small(**changes: object) -> HubertConfig:
    settings: dict[str, object] = {
        "layers": 2,
        "dim": 32,
        "ffn_dim": 64,
        "heads": 4,
        "conv_layers": CONV,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "num_units": 10,
    }
    return HubertConfig(**{**settings, **changes})  # type: ignore[arg-type]


def make(**changes: object) -> Hubert:
    torch.manual_seed(0)
    return Hubert(small(**changes))


def batch(lens: tuple[int, ...] = (16000, 12000), units: int = 10) -> PretrainBatch:
    torch.manual_seed(1)
    audio = torch.zeros(len(lens), max(lens))
    labels = torch.full((len(lens), -(-max(lens) // 320)), -1)
    for row, length in enumerate(lens):
        audio[row, :length] = 0.1 * torch.randn(length)
        labels[row, : -(-length // 320)] = torch.randint(0, units, (-(-length // 320),))
    return PretrainBatch(audio, torch.tensor(lens), labels, [str(n) for n in lens])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("hubert_k2ssl_tiny", 1_239_140),
        ("hubert_k2ssl_base", 94_759_288),
        ("hubert_k2ssl_large", 315_951_736),
        ("hubert_orig_base", 94_697_600),
        ("hubert_orig_large", 316_609_408),
    ],
)
def test_presets_have_the_published_sizes(name: str, parameters: int) -> None:
    path = registry.upstreams()[name].config
    assert path is not None
    with torch.device("meta"):
        model = MODEL(configs.load(HubertConfig, path))
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_registry_builds_the_tiny_preset() -> None:
    with pytest.warns(UserWarning, match="RANDOM"):
        upstream = load_upstream("hubert_k2ssl_tiny")
    wavs = [torch.randn(16000), torch.randn(5000), torch.randn(1)]
    states = upstream(wavs)["hidden_states"]
    assert len(states) == 5
    assert {tuple(state.shape) for state in states} == {(3, 50, 160)}
    assert upstream.get_downsample_rates("hidden_states") == 320


@pytest.mark.parametrize("large", [False, True])
def test_frames_do_not_depend_on_padding(large: bool) -> None:
    mode = "layer" if large else "group"
    upstream = Upstream(
        make(layer_norm_first=large, extractor_mode=mode, normalize=large, conv_bias=large), "random"
    )
    torch.manual_seed(2)
    wavs = [0.1 * torch.randn(length) for length in (16000, 9999, 3200, 401, 399, 320, 17, 1)]
    together = upstream(wavs)["hidden_states"]
    for row, wav in enumerate(wavs):
        for layer, state in zip(together, upstream([wav])["hidden_states"], strict=True):
            frames = -(-len(wav) // 320)
            assert state.shape[1] == frames
            torch.testing.assert_close(layer[row, :frames], state[0], atol=1e-4, rtol=0)
            assert not layer[row, frames:].any()


def test_published_compatibility_leaks_padding() -> None:
    upstream = Upstream(make(compat="k2ssl"), "random")
    torch.manual_seed(2)
    wav = torch.randn(4000)
    alone = upstream([wav])["last_hidden_state"][0]
    padded = upstream([wav, torch.randn(16000)])["last_hidden_state"][0, :13]
    assert float((alone - padded).abs().max()) > 1e-2


def test_compatibility_changes_nothing_on_unpadded_audio() -> None:
    ours, theirs = Upstream(make(), "random"), Upstream(make(compat="k2ssl"), "random")
    wav = torch.randn(8000)
    torch.testing.assert_close(ours([wav])["last_hidden_state"], theirs([wav])["last_hidden_state"])


@pytest.mark.parametrize("objective", ["ce", "nce"])
def test_training_lowers_the_loss(objective: str) -> None:
    model = make(objective=objective, dropout=0.0, attention_dropout=0.0).train()
    data = batch()
    data.labels = torch.where(data.labels >= 0, 3, -1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        out = model(data)
        optimizer.zero_grad()
        (out.loss_sum / out.frames).backward()
        optimizer.step()
        losses.append(out.loss_sum.item() / int(out.frames))
    assert losses[-1] < 0.5 * losses[0]
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing


def test_evaluation_is_deterministic_and_leaves_the_training_masks_alone() -> None:
    model = make().eval()
    state = model.mask_generator.get_state()
    first, second = model(batch()), model(batch())
    assert torch.equal(first.loss_sum, second.loss_sum)
    assert torch.equal(model.mask_generator.get_state(), state)


def test_mask_generator_resumes_training_exactly() -> None:
    model = make(dropout=0.0, attention_dropout=0.0).train()
    model(batch())
    state, twin = model.mask_generator.get_state(), make(dropout=0.0, attention_dropout=0.0).train()
    twin.mask_generator.set_state(state)
    assert torch.equal(model(batch()).loss_sum, twin(batch()).loss_sum)


def test_loss_does_not_depend_on_padding() -> None:
    model, data = make().eval(), batch()
    mask = torch.zeros(2, 49, dtype=torch.bool)
    mask[:, 5:20] = True

    def cross_entropy(rows: slice, samples: int) -> float:
        features, lens = model.features(data.audio[rows, :samples], data.audio_lens[rows])
        out = model.masked_loss(features, lens, data.labels[rows], mask[rows, : features.shape[1]])
        assert int(out.frames) == 15 * len(lens)
        return out.loss_sum.item() - 10 * out.metrics["feature_penalty"].item()

    alone = cross_entropy(slice(0, 1), 16000) + cross_entropy(slice(1, 2), 12000)
    assert cross_entropy(slice(None), 16000) == pytest.approx(alone, rel=1e-5)


def test_gradient_multiplier_and_layerdrop() -> None:
    full, tenth = make(feature_grad_mult=1.0).eval(), make(feature_grad_mult=0.1).eval()
    for model in (full, tenth):
        model(batch()).loss_sum.backward()
    a = full.feature_extractor.conv_layers[1]["0"].weight.grad  # type: ignore[index]
    b = tenth.feature_extractor.conv_layers[1]["0"].weight.grad  # type: ignore[index]
    torch.testing.assert_close(0.1 * a, b, rtol=1e-4, atol=1e-5)
    skipped = make(layerdrop=1.0, dropout=0.0).train()
    states = skipped.encode(*skipped.features(batch().audio, batch().audio_lens))
    assert torch.equal(states[0], states[-1])


def test_bf16_autocast_stays_near_fp32() -> None:
    model = make().eval()
    with torch.autocast("cpu", torch.bfloat16):
        low = model(batch()).loss_sum
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, model(batch()).loss_sum, rtol=0.02, atol=0)


def test_label_outside_the_head_is_an_error_that_says_how_to_mend() -> None:
    with pytest.raises(SslbenchError, match="num_units"):
        make()(batch(units=20))


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    model = copy.deepcopy(make())
    UpstreamCheckpoint(Hubert.family, configs.to_dict(model.config), model.state_dict()).save(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        upstream = load_upstream("hubert_k2ssl", ckpt=tmp_path)
    assert upstream.weights == "trained"
    wav = torch.randn(5000)
    expected = Upstream(model, "trained")([wav])["last_hidden_state"]
    assert torch.equal(upstream([wav])["last_hidden_state"], expected)
