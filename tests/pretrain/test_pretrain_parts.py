"""Checkpoints, schedules, units and randomness, each alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lhotse import MonoCut
from pretrain_toy import config, make_both, make_settings
from torch import nn

from sslbench.data.loading import AudioBatch
from sslbench.data.manifests import open_manifest, write_manifest
from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.pretrain.batches import check_units, collate, majority_share
from sslbench.pretrain.config import PretrainConfig
from sslbench.pretrain.optimizer import make_updater
from sslbench.train import checkpoint
from sslbench.train.average import RunningAverage, average_between
from sslbench.train.randomness import derive, seed_everything
from sslbench.train.schedule import batch_count, cosine, polynomial


def snapshot(step: int) -> checkpoint.Snapshot:
    state = {"w": torch.full((3, 4), float(step)), "b": torch.arange(3)}
    trainer = {"updater": {"lr": 0.1, "t": torch.ones(2)}, "step": step}
    return checkpoint.Snapshot(step, state, state, trainer, {"dev_loss": 1.0})


def test_a_checkpoint_comes_back_and_old_ones_go(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        checkpoint.save(tmp_path, snapshot(step), keep_last=3)
    assert checkpoint.steps_in(tmp_path) == [4, 6, 8]
    assert checkpoint.newest_good(tmp_path) == 8
    loaded = checkpoint.load(checkpoint.folder_of(tmp_path, 8))
    assert torch.equal(loaded.model["w"], snapshot(8).model["w"])
    assert loaded.average is not None
    assert loaded.trainer["updater"]["lr"] == 0.1
    assert loaded.facts == {"dev_loss": 1.0}


@pytest.mark.parametrize("name", ["model.safetensors", "average.safetensors", "trainer.pt", "meta.json"])
@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_newest_checkpoint_is_found_and_the_one_before_used(
    tmp_path: Path, name: str, how: str
) -> None:
    rng = random.Random(name + how)
    checkpoint.save(tmp_path, snapshot(2), keep_last=3)
    for _ in range(8):
        checkpoint.save(tmp_path, snapshot(4), keep_last=3)
        path = checkpoint.folder_of(tmp_path, 4) / name
        damage(path, how, rng)
        with pytest.warns(UserWarning, match="going back to the checkpoint before it"):
            assert checkpoint.newest_good(tmp_path) == 2
    assert (tmp_path / "damaged-step-00000004").is_dir()


def damage(path: Path, how: str, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncate":
        path.write_bytes(data[: rng.randrange(len(data) - 2)])
    elif path.name == "meta.json":  # any other byte there may be harmless, such as a blank
        start = data.index(b'"sha256"') + data[data.index(b'"sha256"') :].index(b'": "') + 4
        data[start + rng.randrange(64)] ^= 1
        path.write_bytes(data)
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    assert checkpoint.newest_good(tmp_path) is None
    checkpoint.save(tmp_path, snapshot(2), keep_last=3)
    (checkpoint.folder_of(tmp_path, 2) / "trainer.pt").write_bytes(b"x")
    with (
        pytest.warns(UserWarning, match="going back"),
        pytest.raises(SslbenchError, match="no checkpoint is whole"),
    ):
        checkpoint.newest_good(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, snapshot(2), keep_last=3)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(SslbenchError, match="No space left"):
        checkpoint.save(tmp_path, snapshot(4), keep_last=3)
    assert checkpoint.newest_good(tmp_path) == 2
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_checkpoint_under_another_name_is_refused(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, snapshot(2), keep_last=3)
    folder.rename(checkpoint.folder_of(tmp_path, 9))
    with pytest.raises(CorruptFileError, match="is of step 2"):
        checkpoint.load(checkpoint.folder_of(tmp_path, 9))


def test_batch_count_is_k2ssl_s(tmp_path: Path) -> None:
    base = config({**make_settings(tmp_path, tmp_path / "e")}, max_duration_s=600.0)
    # k2SSL: 8 GPUs at 600 s multiply by 8, so a schedule of 4,000 ends after 500 updates
    assert batch_count(500, base.update_s(world_size=8), 600.0) == 4000
    assert batch_count(509, base.update_s(world_size=8), 600.0) == 4000
    assert batch_count(510, base.update_s(world_size=1), 600.0) == 510


def test_cosine_warms_up_and_ends_at_its_floor() -> None:
    rates = [cosine(step, 100, 10) for step in range(101)]
    assert rates[9] == rates[10] == 1.0 == max(rates)
    assert rates[55] == pytest.approx(0.505)
    assert rates[100] == pytest.approx(0.01)
    assert [cosine(step, 100, 10, floor=1.0) for step in (0, 10, 60, 100)] == [0.1, 1.0, 1.0, 1.0]


def test_polynomial_warms_up_and_ends_at_zero() -> None:
    rates = [polynomial(step, 400, 32, 1.0) for step in range(401)]
    assert rates[31] == 1.0 == max(rates)
    assert rates[0] == pytest.approx(1 / 32)
    assert rates[216] == pytest.approx(0.5)
    assert rates[400] == 0.0


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


def test_average_between_leaves_the_early_weights_out() -> None:
    values = [{"w": torch.tensor([float(step)]), "n": torch.tensor(step)} for step in range(1, 11)]
    running = RunningAverage({"w": torch.zeros(1), "n": torch.tensor(0)}, every=1)
    kept = {}
    for step, value in enumerate(values, 1):
        running.update(lambda now=value: now, step)
        assert running.value is not None
        kept[step] = {name: t.clone() for name, t in running.value.items()}
    assert kept[10]["w"].item() == pytest.approx(5.5)
    between = average_between(kept[4], 4, kept[10], 10)
    assert between["w"].item() == pytest.approx(sum(range(5, 11)) / 6)
    assert between["n"].item() == 10


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
        check_units(manifest, 50.0, 4)


def test_too_many_units_for_the_model_are_named(corpus: Path) -> None:
    check_units(str(corpus / "train.jsonl.gz"), 50.0, 4)
    with pytest.raises(SslbenchError, match="has unit 3 but the model has num_units 3"):
        check_units(str(corpus / "train.jsonl.gz"), 50.0, 3)


def test_majority_share_is_counted(corpus: Path) -> None:
    frames = [len(c.custom["kmeans"].split()) for c in open_manifest(corpus / "dev.jsonl.gz")]
    by_tone = [sum(frames[tone::4]) for tone in range(4)]
    share = majority_share(str(corpus / "dev.jsonl.gz"), 50.0)
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


def test_randomness_depends_on_the_place_only() -> None:
    model = nn.Module()
    model.generator = torch.Generator()  # type: ignore[assignment]
    model.dice = random.Random()  # type: ignore[assignment]

    def draw(*place: int | str) -> tuple[float, ...]:
        seed_everything(model, 7, *place)
        held = torch.rand(1, generator=model.generator).item(), model.dice.random()  # type: ignore[operator, arg-type]
        return (random.random(), float(np.random.rand()), torch.rand(1).item(), *held)

    first = draw("batch", 1)
    other = draw("batch", 2)
    assert draw("batch", 1) == first
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert len({derive(s, "batch", i) for s in range(10) for i in range(1000)}) == 10_000


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
