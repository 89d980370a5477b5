"""MACs of the full-size presets against closed forms and published ratios, without weights or arithmetic."""

from __future__ import annotations

import pytest
import torch

from sslbench import config as configs
from sslbench import registry
from sslbench.nn.upstream import Upstream
from sslbench.profile.macs import BUCKETS, Macs, count_macs
from sslbench.upstreams import model_class

SAMPLES = [samples for lengths in BUCKETS.values() for samples in lengths]


def macs_of(preset: str) -> Macs:
    entry = registry.upstreams()[preset]
    cls = model_class(entry.family)
    assert entry.config is not None
    settings = configs.load(cls.config_class, entry.config)

    def build() -> Upstream:
        with torch.device("meta"):
            return Upstream(cls(settings), "random")

    return count_macs(build)


def filterbank_g() -> float:
    """The spectra and mel filters of 100 frames a second, 80 bins: they are part of every count below."""
    frames = sum((samples - 400) // 160 + 1 for samples in SAMPLES)
    return frames * (5 * 512 * 9 / 4 + 257 * 80) / 1e9


# by closed form over the 32 lengths: HuBERT Base; the same Transformer on the two filterbank front ends
@pytest.mark.parametrize(
    ("preset", "expected_g"),
    [
        ("fast_hubert_base", 551.2),
        pytest.param("hubert_orig_base", 1665.5, marks=pytest.mark.slow),
        pytest.param("melhubert_base_20ms", 1108.0, marks=pytest.mark.slow),
    ],
)
def test_full_sizes_cost_what_the_closed_form_says(preset: str, expected_g: float) -> None:
    macs = macs_of(preset)
    assert macs.total_g == pytest.approx(expected_g, rel=0.01)
    assert (macs.counted_on, macs.unlisted) == ("meta", [])
    if preset == "fast_hubert_base":
        # front end and filterbank apart, the rest is a Transformer at 25 Hz
        assert macs.total_g - filterbank_g() == pytest.approx(expected_g, rel=0.001)
        assert 0 < macs.kinds_g["fft"] < filterbank_g() < 1


@pytest.mark.slow
def test_a_filterbank_takes_most_of_zipformer_s_cost_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one length per bucket: the ratio hardly depends on it."""
    for bucket, lengths in BUCKETS.items():
        monkeypatch.setitem(BUCKETS, bucket, lengths[4:5])
    waveform, filterbank = macs_of("zipformer_base"), macs_of("zipformer_fbank_base")
    assert filterbank.unlisted == []
    assert filterbank.total_g / waveform.total_g == pytest.approx(0.295, abs=0.01)
