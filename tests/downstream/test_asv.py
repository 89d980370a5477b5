"""Speaker verification's trials, its two ways to choose, and what it needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from official_layouts import voxceleb
from probe_fakes import Spectral, make_corpus

from sslbench.downstream.asv import data
from sslbench.downstream.asv.eer import equal_error_rate
from sslbench.downstream.asv.task import Task, without_silence
from sslbench.errors import SslbenchError
from sslbench.probe.rundir import RunDir
from sslbench.probe.runner import Named, ProbeSettings, run_task


def test_official_layout(tmp_path: Path) -> None:
    task = Task("short")
    parts = task.prepare(voxceleb(tmp_path))
    assert task.labels == ["id10001", "id10002", "id10003", "id10004"]
    assert {e.speaker for e in parts["test"]} == {"id10005", "id10006"}
    assert len(task.trials("test", parts["test"])) == 12
    videos = {part: {e.id.rsplit("-", 1)[0] for e in parts[part]} for part in ("train", "dev")}
    assert not videos["train"] & videos["dev"]  # dev trials are of videos that training never hears
    same = [t for t in task.trials("dev", parts["dev"]) if t.same]
    assert same
    assert all(t.enrol.split("-")[1] != t.test.split("-")[1] for t in same)


def test_both_ways_to_choose_are_reported(tmp_path: Path) -> None:
    task = Task("smoke")
    task.protocol = replace(
        task.protocol, steps=4, eval_every=2, batch_clips=4, max_train_clip_s=1.0, train_hours=0.005
    )
    settings = ProbeSettings(voxceleb(tmp_path / "v"), tmp_path / "exp", tmp_path / "results")
    row = run_task(task, Spectral, Named("fake", "fake"), settings)
    assert list(row.metrics) == ["eer", "eer_test_selected"]
    assert row.metrics["eer_test_selected"].value <= row.metrics["eer"].value
    run = RunDir(tmp_path / "exp" / "asv")
    assert row.search is not None
    best = []
    for lr in row.search.lr_grid:
        rows = run.predictions(lr, "test_selected")
        best.append(100 * equal_error_rate([r.ref == "1" for r in rows], [float(r.hyp) for r in rows]))
    assert row.metrics["eer_test_selected"].value == pytest.approx(min(best))


def test_equal_error_rate_by_hand() -> None:
    assert equal_error_rate([True, True, False, False], [4, 3, 2, 1]) == 0
    assert equal_error_rate([True, True, False, False], [1, 2, 3, 4]) == 1
    assert equal_error_rate([True, False, True, False], [4, 3, 2, 1]) == pytest.approx(0.5)


def test_silence_is_left_out() -> None:
    loud, quiet = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0)), torch.zeros(4000)
    kept = without_silence(torch.cat([quiet, loud, quiet, loud]))
    assert abs(len(kept) - 16_000) <= 4 * 320
    assert len(without_silence(torch.cat([loud, quiet[:1200], loud]))) == 17_200  # shorter than 0.1 s stays
    assert len(without_silence(quiet)) == 4000
    assert len(without_silence(torch.zeros(5))) == 5


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(SslbenchError, match=r"lacks dev/wav, test/wav, voxceleb1_test_v2.txt; unpack"):
        Task("full").prepare(tmp_path)
    root = voxceleb(tmp_path / "v")
    (root / "test/wav/id10005/vid0/00000.wav").unlink()
    with pytest.raises(SslbenchError, match=r"lacks test/wav/id10005/vid0/00000.wav"):
        Task("short").prepare(root)
    with pytest.raises(SslbenchError, match=r"veri_test2.txt: has 12 trials, SUPERB 37720; put s3prl's"):
        Task("full").prepare(root)
    (root / "veri_test2.txt").write_text("1 a\n")
    with pytest.raises(SslbenchError, match=r"veri_test2.txt:1: expected 3 words"):
        Task("full").prepare(root)


def test_a_complete_voxceleb_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """37,720 trials of 4,715 clips beside 148,642 development clips; s3prl's list comes first."""
    names = [f"id10270/v/{number:05d}.wav" for number in range(4_715)]
    pairs = [f"{n % 2} {names[n % 4_715]} {names[n * 7 % 4_715]}" for n in range(37_720)]
    root = voxceleb(tmp_path)
    (root / "voxceleb1_test_v2.txt").write_text("\n".join(pairs) + "\n")
    called = []

    def no_cuts(files: list[data.AudioFile], corpus: str) -> list[object]:
        called.append(corpus)
        return []

    def development(count: int) -> dict[str, list[data.AudioFile]]:
        file = data.AudioFile(tmp_path, "x", "x")
        return {"train": [file] * (count - 100), "dev": [file] * 100}

    monkeypatch.setattr(data, "file_cuts", no_cuts)
    monkeypatch.setattr(data.Missing, "need", lambda self, path: path)
    for count, corpus in ((148_642, "voxceleb1"), (148_641, "voxceleb1 (153356 of 153357 files)")):
        monkeypatch.setattr(data, "_development", lambda folder, count=count: development(count))
        trials = data.official(root, whole=True).trials
        assert trials is not None
        assert len(trials) == 37_720
        assert called.pop() == corpus


def test_clips_below_two_seconds_cannot_train(tmp_path: Path) -> None:
    with pytest.raises(SslbenchError, match="0 speakers have training clips of 2 s"):
        Task("full").prepare(make_corpus(tmp_path, speakers=2, per_session=2))
