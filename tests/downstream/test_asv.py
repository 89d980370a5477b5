"""Speaker verification's trials, its two ways to choose, and what it needs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from official_layouts import voxceleb
from probe_fakes import Spectral, make_corpus

from sslbench.downstream.asv import data
from sslbench.downstream.asv.eer import equal_error_rate
from sslbench.downstream.asv.task import Task, _speakers, without_silence
from sslbench.errors import SslbenchError
from sslbench.io import sha256_json
from sslbench.probe.rundir import RunDir
from sslbench.probe.runner import Named, ProbeSettings, run_task
from sslbench.probe.task import Example, Prediction
from sslbench.probe.train import better


def clip(name: str, who: str, session: int | None = None) -> Example:
    custom = {} if session is None else {"session": session}
    cut: Any = SimpleNamespace(id=name, custom=custom, supervisions=[])
    return Example(cut, -1, "", who)


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


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_the_worst(bad: float) -> None:
    """Trials of one speaker come first, as they are drawn: a head that diverged must not look perfect."""
    same, scores = [True] * 5 + [False] * 5, [0.1 * k for k in range(10, 0, -1)]
    assert equal_error_rate(same, scores) == 0
    assert equal_error_rate(same, [bad] * 10) == 1
    assert equal_error_rate(same, [bad, *scores[1:]]) == pytest.approx(0.2)
    assert equal_error_rate(same, [*scores[:-1], bad]) == pytest.approx(0.2)
    task = Task("smoke")
    rows = [Prediction(f"{k}|x", f"{bad:.6f}", str(int(k < 5)), f"s{k % 3}") for k in range(10)]
    assert task.metrics(rows)["eer"].value == task.selection(rows) == 100
    assert better(99.9, task.selection(rows), task.higher_is_better)


def test_both_speakers_of_a_trial_are_kept() -> None:
    """Of Kaldi-style ids too, which do not begin with the speaker and a hyphen."""
    task = Task("smoke")
    task._trials, task._listed = {}, {}
    examples = [clip(f"{who}_utt{k}", who) for who in ("S0001", "S0002") for k in range(2)]
    rows = task.predictions("dev", examples, list(torch.eye(4)))
    assert Counter(row.ref for row in rows) == {"1": 2, "0": 2}
    for row in rows:
        assert list(_speakers(row)) == [name.split("_")[0] for name in row.id.split("|")]


def test_few_trials_are_all_pairs_and_as_many_of_two_speakers() -> None:
    examples = [clip("a1", "x", 1), clip("b", "x", 1), clip("c", "x"), clip("a2", "y"), clip("d", "y", 2)]
    wanted = {
        (a.id, b.id)
        for a, b in itertools.combinations(examples, 2)
        if a.speaker == b.speaker and (a.cut.custom != b.cut.custom or not a.cut.custom)
    }
    trials = data.drawn_trials(examples)
    assert {frozenset((t.enrol, t.test)) for t in trials if t.same} == set(map(frozenset, wanted))
    speakers = {e.id: e.speaker for e in examples}
    others = {frozenset((t.enrol, t.test)) for t in trials if not t.same}
    assert len(others) == len(wanted) == 3
    assert all(len({speakers[name] for name in pair}) == 2 for pair in others)


def test_trials_of_a_large_corpus_are_drawn() -> None:
    """From 200 million pairs, which are never made. Another order of the clips changes nothing."""
    examples = [clip(f"u{n:05d}", f"s{n % 40:02d}", n % 3) for n in range(20_000)]
    trials = data.drawn_trials(examples)
    assert data.drawn_trials(examples[::-1]) == trials
    assert sha256_json([vars(trial) for trial in trials])[:12] == "cdb3bc915501"  # on every machine
    assert Counter(t.same for t in trials) == {True: 5000, False: 5000}
    assert len({frozenset((t.enrol, t.test)) for t in trials}) == 10_000
    known = {e.id: e for e in examples}
    for one, other, same in ((known[t.enrol], known[t.test], t.same) for t in trials):
        assert (one.speaker == other.speaker) == same
        assert not same or one.cut.custom != other.cut.custom
    counts = Counter(known[t.enrol].speaker for t in trials if t.same)
    assert 60 < min(counts.values()) <= max(counts.values()) < 200  # 125 each on average


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
