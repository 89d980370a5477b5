"""Every preset of every family: its size, the contract, and three updates on real batches."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from lhotse.cut import Cut

from sslbench import check, registry
from sslbench import config as configs
from sslbench.data.loading import BatchLoader
from sslbench.data.manifests import open_manifest
from sslbench.nn.upstream import PretrainBatch, SSLModel
from sslbench.upstreams import build_model, load_upstream, model_class

PARAMETERS = {
    "fast_hubert_base": 93_979_504,
    "fast_hubert_tiny": 1_295_624,
    "hubert_k2ssl_base": 94_759_288,
    "hubert_k2ssl_large": 315_951_736,
    "hubert_k2ssl_tiny": 1_239_140,
    "hubert_orig_base": 94_697_600,
    "hubert_orig_large": 316_609_408,
    "melhubert_base_20ms": 90_231_424,
    "melhubert_tiny": 1_163_652,
    "zipformer_base": 94_561_917,
    "zipformer_fbank_base": 90_772_093,
    "zipformer_fbank_tiny": 1_463_778,
    "zipformer_large": 305_938_464,
    "zipformer_tiny": 1_435_682,
}
"""In pretraining form, heads included."""
UNUSED = ("bypass_scale", "downsample_output.bias")
"""Ends of the names that k2SSL's Zipformer has in every checkpoint and never uses."""
FRAMES_PER_S = 50


def pretrainable() -> list[str]:
    """The presets that come with a configuration of a pretrainable family."""
    entries = [entry for entry in registry.upstreams() if entry.source == "sslbench" and entry.config]
    return [entry.name for entry in entries if entry.family != "hf"]


TINY = [name for name in pretrainable() if name.endswith("_tiny")]
BIG = [name for name in pretrainable() if not name.endswith("_tiny")]


def on_meta(name: str) -> SSLModel:
    entry = registry.upstreams()[name]
    assert entry.config is not None
    cls = model_class(entry.family)
    with torch.device("meta"):
        return cls(configs.load(cls.config_class, entry.config))


def test_every_preset_is_listed_here() -> None:
    assert set(pretrainable()) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_counted_to_the_last_one(name: str) -> None:
    assert sum(p.numel() for p in on_meta(name).parameters()) == PARAMETERS[name]


def test_fast_hubert_s_encoder_has_the_published_size() -> None:
    model: Any = on_meta("fast_hubert_base")
    heads = sum(p.numel() for p in model.final_proj.parameters())
    assert sum(p.numel() for p in model.parameters()) - heads == 93_204_352
    assert [tuple(head.weight.shape) for head in model.final_proj] == [(504, 768)] * 2


@pytest.mark.parametrize("name", BIG)
def test_big_presets_state_shapes_by_the_contract(name: str) -> None:
    """Every layer (B, ceil(T / stride), D), without computing anything."""
    model = on_meta(name).eval()
    stride = 640 if name.startswith("fast_hubert") else 320
    assert model.stride == stride
    for samples in (160, 16_000, 50_001):
        lens = torch.tensor([samples] * 2, device="meta")
        states = model.hidden_states(torch.zeros(2, samples, device="meta"), lens)
        assert {tuple(state.shape[:2]) for state in states} == {(2, -(-samples // stride))}
        assert len({state.shape[2] for state in states}) == 1


@pytest.mark.parametrize("name", TINY)
def test_contract_holds_point_by_point(name: str) -> None:
    def build(frozen: bool) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load_upstream(name, frozen=frozen)

    assert [point for point in check.check(build) if not point.ok] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", BIG)
def test_contract_holds_for_big_presets_too(name: str) -> None:
    """Clips and batches of few frames, since every computed second costs here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        upstream = load_upstream(name)
    upstream.train()
    wavs = [check.clip(samples) for samples in (9000, 4801, 160, 1)]
    stride = upstream.get_downsample_rates("hidden_states")  # type: ignore[operator]
    with torch.no_grad():
        together = upstream(wavs)["hidden_states"]
        for row, wav in enumerate(wavs):
            for alone, padded in zip(upstream([wav])["hidden_states"], together, strict=True):
                frames = -(-len(wav) // stride)
                assert alone.shape[1] == frames
                scale = max(1.0, float(alone.square().mean().sqrt()))
                assert float((padded[row, :frames] - alone[0]).abs().max()) / scale < 1e-4


@pytest.fixture(scope="module")
def batches(mini_corpus: Any) -> list[PretrainBatch]:
    """Three batches of the embedded corpus; units are energy ranks, which audio does predict."""
    cuts = open_manifest(mini_corpus / "train-1h.jsonl.gz")
    loader = BatchLoader(cuts, max_duration_s=12.0, shuffle=True)
    found = []
    for batch in loader.epoch(0):
        found.append(with_units(batch.audio, batch.audio_lens, batch.cuts))
        if len(found) == 3:
            break
    return found


def with_units(audio: torch.Tensor, lens: torch.Tensor, cuts: list[Cut]) -> PretrainBatch:
    frames = -(-audio.shape[1] // 320)
    padded = torch.nn.functional.pad(audio, (0, frames * 320 - audio.shape[1]))
    level = padded.view(len(audio), frames, 320).square().mean(2).add(1e-9).log10()  # (B, F), about -9 to 0
    labels = ((level + 9) * 10).long().clamp(0, 89)
    labels[torch.arange(frames)[None] >= ((lens + 319) // 320)[:, None]] = -1
    return PretrainBatch(audio, lens, labels, [cut.id for cut in cuts])


@pytest.mark.parametrize("name", TINY)
def test_three_updates_on_the_embedded_corpus(name: str, batches: list[PretrainBatch]) -> None:
    torch.manual_seed(0)
    model = build_model(name).train()
    model.fit_inputs((batch.audio, batch.audio_lens) for batch in batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    reached: set[str] = set()
    for step, batch in enumerate(batches):
        model.set_batch_count(20_000.0 * step)  # later, fewer modules are skipped
        output = model(batch)
        assert int(output.frames) > 0
        loss = output.loss_sum / output.frames
        assert bool(loss.isfinite())
        optimizer.zero_grad()
        loss.backward()
        grads = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        assert all(bool(grad.isfinite().all()) for grad in grads.values())
        reached |= {key for key, grad in grads.items() if bool(grad.any())}
        optimizer.step()
    missed = {key for key, _ in model.named_parameters()} - reached
    assert {key for key in missed if not key.endswith(UNUSED)} == set()


def test_a_change_inside_a_group_of_settings_keeps_the_preset_s_others() -> None:
    preset, changed = (
        build_model("fast_hubert_tiny", changes).config.fbank
        for changes in (None, {"fbank": {"channels": 64}})
    )
    assert (preset.conv_channels, preset.channels) == (128, 96)
    assert (changed.conv_channels, changed.channels) == (128, 64)
    stacked = build_model("melhubert_tiny", {"fbank": {"cmvn": "utterance"}}).config.fbank
    assert (stacked.cmvn, stacked.mel_bins, stacked.stack) == ("utterance", 40, 2)
