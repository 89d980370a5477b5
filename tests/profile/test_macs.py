"""MAC counts against published figures and closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sslbench.profile.macs import BUCKETS, TOTAL_AUDIO_S, count_macs
from sslbench.profile.operators import FORMULAS

SAMPLES = sum(sum(lengths) for lengths in BUCKETS.values())


def _torchaudio_forward(model: Any, wav: torch.Tensor) -> Any:
    return model.extract_features(wav[None])


# SUPERB challenge table (G); parameters as built by torchaudio
@pytest.mark.parametrize(
    ("name", "params_m", "published_g"),
    [("hubert_base", 94.37, 1669), pytest.param("hubert_large", 315.43, 4324, marks=pytest.mark.slow)],
)
def test_hubert_matches_the_superb_challenge(
    name: str, params_m: float, published_g: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for init in ("kaiming_uniform_", "xavier_uniform_", "kaiming_normal_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, init, lambda tensor, *_, **__: tensor)  # values do not matter here
    models = pytest.importorskip("torchaudio.models")
    macs = count_macs(getattr(models, name), _torchaudio_forward)
    assert macs.total_g == pytest.approx(published_g, rel=0.01)
    assert macs.counted_on == "meta"
    assert macs.unlisted == []
    assert macs.params_active / 1e6 == pytest.approx(params_m, abs=0.005)
    if name == "hubert_base":
        published = {"short": 149.26, "medium": 261.28, "long": 422.37, "longer": 836.25}
        assert macs.buckets_g == pytest.approx(published, rel=0.01)
        assert macs.kinds_g["convolution"] / macs.total_g == pytest.approx(0.331 + 0.032, abs=0.005)


def test_parameters_of_hubert_base_for_pretraining() -> None:
    models = pytest.importorskip("torchaudio.models")
    assert sum(
        p.numel() for p in models.hubert_pretrain_base(num_classes=500).parameters()
    ) / 1e6 == pytest.approx(94.70, abs=0.005)


def test_lengths_are_the_challenge_s() -> None:
    assert {name: len(lengths) for name, lengths in BUCKETS.items()} == dict.fromkeys(BUCKETS, 8)
    assert pytest.approx(224.86, abs=0.01) == TOTAL_AUDIO_S


class _Filter(nn.Module):
    """One strided convolution of known cost."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 8, kernel_size=320, stride=320)
        self.unused = nn.Linear(3, 3)

    def forward(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        return torch.relu(self.conv(wavs[0][None, None]))


def test_convolution_equals_the_closed_form_and_unused_parameters_are_not_active() -> None:
    macs = count_macs(_Filter)
    frames = sum(samples // 320 for lengths in BUCKETS.values() for samples in lengths)
    assert macs.total_g * 1e9 == pytest.approx(frames * 320 * 8)
    assert macs.params_active == 320 * 8 + 8


class _NeedsValues(_Filter):
    """Looks at numbers, as models that turn lengths into Python integers do."""

    def forward(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        length = int(torch.ones(1, device=wavs[0].device).sum().item())
        return super().forward(wavs) * length


def test_models_that_need_values_are_counted_on_the_cpu_with_the_same_result() -> None:
    on_cpu, on_meta = count_macs(_NeedsValues), count_macs(_Filter)
    assert on_cpu.counted_on == "cpu"
    assert on_meta.counted_on == "meta"
    assert on_cpu.buckets_g == on_meta.buckets_g
    assert "meta device" in on_cpu.notes[0]


class _Attention(nn.Module):
    """Scaled dot-product attention over 20 ms frames; torch's CPU kernel is invisible to torch's counter."""

    def forward(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        frames = len(wavs[0]) // 320
        states = torch.zeros(1, 2, frames, 16, device=wavs[0].device)
        result = nn.functional.scaled_dot_product_attention(states, states, states)
        if wavs[0].device.type == "cpu":
            assert float(result.sum()) == 0.0
        else:
            result.sum()
        return result


class _AttentionOnCpu(_Attention):
    def forward(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        wavs[0].sum().item()  # fails on meta
        return super().forward(wavs)


@pytest.mark.parametrize("model", [_Attention, _AttentionOnCpu])
def test_attention_is_counted_on_every_device(model: type[nn.Module]) -> None:
    expected = sum(2 * 2 * 16 * (samples // 320) ** 2 for lengths in BUCKETS.values() for samples in lengths)
    assert count_macs(model).total_g * 1e9 == pytest.approx(expected)


class _Fourier(nn.Module):
    def forward(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        return torch.fft.rfft(wavs[0][: len(wavs[0]) // 512 * 512].view(-1, 512))


def test_fourier_transforms_are_counted_by_formula() -> None:
    rows = sum(samples // 512 for lengths in BUCKETS.values() for samples in lengths)
    macs = count_macs(_Fourier)
    assert macs.kinds_g["fft"] * 1e9 == pytest.approx(rows * 5 * 512 * 9 / 2 / 2)
    assert macs.unlisted == []


@torch.library.custom_op("sslbench_test::work", mutates_args=())
def _work(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@_work.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class _Custom(_Filter):
    def forward(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        return _work(super().forward(wavs))


def test_an_operator_without_a_formula_is_named() -> None:
    assert count_macs(_Filter).unlisted == []
    assert count_macs(_Custom).unlisted == ["sslbench_test.work.default"]


def test_formulas_are_for_operators_that_exist() -> None:
    assert all(hasattr(operator, "overloads") for operator in FORMULAS)
