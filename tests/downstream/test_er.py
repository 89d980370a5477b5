"""Emotion recognition's folds and their score."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from official_layouts import iemocap
from probe_fakes import Spectral

from sslbench.downstream.er.task import Task
from sslbench.errors import SslbenchError
from sslbench.io import read_jsonl
from sslbench.probe.rundir import RunDir
from sslbench.probe.runner import Named, ProbeSettings, run_task


def test_five_folds_by_session(tmp_path: Path) -> None:
    folds = Task("full").folds(iemocap(tmp_path))
    assert list(folds) == [f"fold{n}" for n in range(1, 6)]
    for n, parts in enumerate(folds.values(), 1):
        assert {e.id[:5] for e in parts["test"]} == {f"Ses0{n}"}
        assert f"Ses0{n}" not in {e.id[:5] for e in parts["train"] + parts["dev"]}
        assert (len(parts["train"]), len(parts["dev"]), len(parts["test"])) == (32, 8, 10)
        assert {e.reference for e in parts["test"]} == {"neu", "hap", "ang", "sad"}
        assert not {e.id for e in parts["train"]} & {e.id for e in parts["dev"]}


def test_s3prls_lists_give_its_order(tmp_path: Path) -> None:
    root = iemocap(tmp_path)
    before = Task("full").folds(root)["fold2"]
    ids = sorted((e.id for e in before["train"] + before["dev"]), reverse=True)
    listed = root / "meta_data" / "Session2" / "train_meta_data.json"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps({"meta_data": [{"path": f"x/{name}.wav"} for name in ids]}))
    after = Task("full").folds(root)["fold2"]
    assert [e.id for e in after["dev"]] != [e.id for e in before["dev"]]
    listed.write_text(json.dumps({"meta_data": [{"path": "x/other.wav"}]}))
    with pytest.raises(SslbenchError, match="meta_data lists 1 clips, the sessions hold 40"):
        Task("full").folds(root)


def test_one_row_of_five_folds(tmp_path: Path) -> None:
    task = Task("smoke")
    task.protocol = replace(task.protocol, steps=40, eval_every=20, lr_grid=[1e-2, 1e-4])
    upstream = Spectral()
    settings = ProbeSettings(iemocap(tmp_path / "i"), tmp_path / "exp", tmp_path / "results")
    row = run_task(task, lambda: upstream, Named("fake", "fake"), settings)
    assert upstream.calls < 10  # one pass serves all folds
    run = RunDir(tmp_path / "exp" / "er")
    assert row.search is not None
    accuracies = []
    for n in range(1, 6):
        assert set(run.finished(f"fold{n}")) == {1e-2, 1e-4}
        rows = run.predictions(row.search.lr, "test", f"fold{n}")
        accuracies.append(100 * sum(r.hyp == r.ref for r in rows) / len(rows))
    assert row.metrics["acc"].value == pytest.approx(sum(accuracies) / 5)
    assert row.metrics["acc"].n == 50
    merged = (tmp_path / "results" / "fake" / row.artifacts["predictions"]).resolve()
    assert len(list(read_jsonl(merged))) == 50


def test_missing_sessions_are_named(tmp_path: Path) -> None:
    root = iemocap(tmp_path)
    (root / "Session3").rename(root / "other")
    with pytest.raises(
        SslbenchError, match=r"lacks Session3/dialog/EmoEvaluation, Session3/sentences/wav; give"
    ):
        Task("full").folds(root)


def test_corpus_with_labels(mini_corpus: Path) -> None:
    folds = Task("smoke").folds(mini_corpus)
    speakers = [{e.speaker for e in parts["test"]} for parts in folds.values()]
    assert len(set.union(*speakers)) == sum(map(len, speakers))


def test_real_emotions(shared_dir: Path, tmp_path: Path) -> None:
    """EmoDB as it is, 22.05 kHz: folds by speaker, clips resampled."""
    folds = Task("smoke").folds(shared_dir / "data" / "emodb_mini")
    clips = folds["fold1"]["test"]
    assert clips[0].cut.sampling_rate == 16_000
    assert {e.reference for e in clips} == {"neu", "hap", "ang", "sad"}
