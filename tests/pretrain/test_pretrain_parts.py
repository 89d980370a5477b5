"""Settings, units and batches of pretraining, each alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse import MonoCut
from pretrain_toy import config, make_both, make_settings
from torch import nn

from sslbench.data.loading import AudioBatch
from sslbench.data.manifests import open_manifest, write_manifest
from sslbench.errors import SslbenchError
from sslbench.pretrain.batches import check_units, collate, majority_share
from sslbench.pretrain.config import PretrainConfig
from sslbench.pretrain.optimizer import make_updater
from sslbench.train.schedule import batch_count


def test_batch_count_is_k2ssl_s(tmp_path: Path) -> None:
    base = config({**make_settings(tmp_path, tmp_path / "e")}, max_duration_s=600.0)
    # k2SSL: 8 GPUs at 600 s multiply by 8, so a schedule of 4,000 ends after 500 updates
    assert batch_count(500, base.update_s(world_size=8), 600.0) == 4000
    assert batch_count(509, base.update_s(world_size=8), 600.0) == 4000
    assert batch_count(510, base.update_s(world_size=1), 600.0) == 510


def test_eden_rates_are_the_published_ones(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, tmp_path / "e", optimizer="scaled_adam", lr=0.045)
    settings.update(lr_batches=7500.0, warmup_steps=5000, max_duration_s=600.0)
    model = nn.Linear(2, 2)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    updater = make_updater(model, config(settings), world_size=8)
    assert updater.lr == 0.0
    steps_per_epoch = 960 * 3600 / (600 * 8)
    updater.step(round(50 * steps_per_epoch), epoch=50)
    assert updater.lr == pytest.approx(0.0093, rel=0.02)  # k2ssl.md §4, epoch 50


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_both(tmp_path_factory.mktemp("toy"))


def rewrite(corpus: Path, target: Path, units: str | None) -> str:
    cuts = list(open_manifest(corpus / "train.jsonl.gz"))
    cuts[3].custom = {} if units is None else {"kmeans": units}
    write_manifest(cuts, target)
    return str(target)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (None, r"cut train003 has no units .*sslbench units apply"),
        ("1 2 x", "units of cut train003 are not whole numbers"),
        ("1 2 3", r"train003 has \d\.\d units per second .*50 expected"),
    ],
)
def test_unfit_units_are_named(corpus: Path, tmp_path: Path, units: str | None, message: str) -> None:
    manifest = rewrite(corpus, tmp_path / "bad.jsonl.gz", units)
    with pytest.raises(SslbenchError, match=f"bad.jsonl.gz: .*{message}"):
        check_units(manifest, 4)


def test_too_many_units_for_the_model_are_named(corpus: Path) -> None:
    check_units(str(corpus / "train.jsonl.gz"), 4)
    with pytest.raises(SslbenchError, match="has unit 3 but the model has num_units 3"):
        check_units(str(corpus / "train.jsonl.gz"), 3)


def test_majority_share_is_counted(corpus: Path) -> None:
    frames = [len(c.custom["kmeans"].split()) for c in open_manifest(corpus / "dev.jsonl.gz")]
    by_tone = [sum(frames[tone::4]) for tone in range(4)]
    share = majority_share(str(corpus / "dev.jsonl.gz"))
    assert share == pytest.approx(max(by_tone) / sum(frames))


def ramp_batch(lengths: list[int]) -> AudioBatch:
    """Audio whose samples count up and whose unit is the frame number, so that offsets can be read off."""
    cuts, rows = [], []
    for number, length in enumerate(lengths):
        cut = MonoCut(id=f"c{number}", start=0.0, duration=length / 16_000, channel=0)
        cut.custom = {"kmeans": " ".join(str(i) for i in range(length // 320))}
        cuts.append(cut)
        rows.append(torch.arange(length, dtype=torch.float32))
    audio = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return AudioBatch(audio, torch.tensor(lengths), cuts)


def run_config(tmp_path: Path, **changes: Any) -> PretrainConfig:
    return config(make_settings(tmp_path, tmp_path / "e"), **changes)


def test_padding_marks_frames_beyond_the_end(tmp_path: Path) -> None:
    made = collate(ramp_batch([3200, 6400, 6500]), run_config(tmp_path), "m", torch.device("cpu"))
    assert made.labels.shape == (3, 21)
    assert made.labels[0].tolist() == [*range(10), *[-1] * 11]
    assert made.labels[2].tolist() == [*range(20), -1]
    assert made.ids == ["c0", "c1", "c2"]


def test_a_crop_keeps_audio_and_units_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    starts = set()
    for _ in range(20):
        settings = run_config(tmp_path, crop="shortest", crop_s=0.4)
        made = collate(ramp_batch([9600, 16_000, 12_800]), settings, "m", torch.device("cpu"))
        assert made.audio.shape == (3, 6400)
        assert made.audio_lens.tolist() == [6400] * 3
        for row, labels in zip(made.audio, made.labels, strict=True):
            starts.add(float(row[0]))
            assert abs(float(row[0]) / 320 - int(labels[0])) <= 0.5
            assert (labels[labels >= 0].diff() == 1).all()
    assert len(starts) > 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0, "accum": 0}, "max_steps must be above 0; accum must be above 0"),
        ({"keep_last": 1}, "keep_last must be at least 2"),
        ({"crop_s": 3.0}, "crop_s needs crop: shortest"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SslbenchError, match=message):
        run_config(tmp_path, **changes)
