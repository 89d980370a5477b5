"""A filterbank model's statistics come from the training data, and travel with its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretrain_toy import TONES_HZ, config, make_both, make_settings
from safetensors.torch import load_file

from sslbench.io import read_jsonl
from sslbench.pretrain import summary
from sslbench.pretrain.inputs import fit_inputs
from sslbench.pretrain.trainer import run
from sslbench.upstreams import build_model

MODEL: dict[str, Any] = {
    "layers": 2, "dim": 32, "ffn_dim": 64, "heads": 2, "num_units": len(TONES_HZ), "conv_pos": 8,
    "conv_pos_groups": 4, "span_frames": 3, "predict_layers": [1, 2],
    "fbank": {"mel_bins": 20, "conv_channels": 32, "channels": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("toy")
    return make_settings(make_both(folder), folder / "exp", upstream="fast_hubert_tiny", model=MODEL)


def test_a_run_fits_learns_logs_each_head_and_exports_the_statistics(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    exp = tmp_path / "exp"
    assert run(config(settings, exp_dir=str(exp), max_steps=40, average_every=5)) == 0
    rows = [row for row in read_jsonl(exp / "log.jsonl") if "loss" in row]
    for name in ("loss_layer1", "acc_layer1", "loss_layer2", "acc_layer2"):
        assert name in rows[0]
    for row in rows:
        assert row["loss"] == pytest.approx((row["loss_layer1"] + row["loss_layer2"]) / 2, rel=1e-4)
        assert row["acc"] == pytest.approx(row["acc_layer2"])
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]

    twin = build_model("fast_hubert_tiny", MODEL)
    assert fit_inputs(twin, config(settings)) > 1000
    fitted: Any = twin.feature_extractor
    summary.export(exp, tmp_path / "trained")
    summary.export_initial(exp, tmp_path / "random")
    for name in ("trained", "random"):
        (weights,) = (tmp_path / name).glob("*.safetensors")
        state = load_file(weights)
        torch.testing.assert_close(state["feature_extractor.cmvn_mean"], fitted.cmvn_mean)
        torch.testing.assert_close(state["feature_extractor.cmvn_std"], fitted.cmvn_std)


def test_a_waveform_model_reads_nothing(settings: dict[str, Any]) -> None:
    model = build_model("hubert_k2ssl_tiny", {"layers": 1})
    assert fit_inputs(model, config(settings, train_manifest="nowhere.jsonl.gz")) == 0
