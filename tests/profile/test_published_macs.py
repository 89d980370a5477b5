"""Published MACs of WavLM and of LightHuBERT's chosen subnet, counted from their shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sslbench.profile.macs import count_macs
from sslbench.upstreams import build_model


@pytest.fixture(autouse=True)
def _values_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for init in ("kaiming_uniform_", "xavier_uniform_", "kaiming_normal_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, init, lambda tensor, *_, **__: tensor)


def _torchaudio_forward(model: Any, wav: torch.Tensor) -> Any:
    return model.extract_features(wav[None])


def test_wavlm_base() -> None:
    models = pytest.importorskip("torchaudio.models")
    macs = count_macs(models.wavlm_base, _torchaudio_forward)
    assert macs.total_g == pytest.approx(1670, rel=0.01)
    # 94.70 M in the paper, with the head that predicts units
    assert macs.params_active / 1e6 == pytest.approx(94.38, abs=0.02)


def test_lighthubert_small() -> None:
    """Subnet `a_small` of LightHuBERT (arXiv 2203.15610): width 384, 6 heads, FFN 1536, 12 layers; 27.0 M."""
    shape = {"dim": 384, "heads": 6, "ffn_dim": 1536}

    def forward(model: Any, wav: torch.Tensor) -> Any:
        return model.hidden_states(wav[None], torch.tensor([len(wav)], device=wav.device))

    macs = count_macs(lambda: build_model("hubert_orig_base", shape), forward)
    assert macs.total_g == pytest.approx(861, rel=0.01)
    assert macs.params_active / 1e6 == pytest.approx(27.0, abs=0.2)
    wider = count_macs(lambda: build_model("hubert_orig_base", shape | {"ffn_dim": 3072}), forward)
    assert wider.total_g != pytest.approx(861, rel=0.01)  # positive control
