"""The leaderboard's archive: its layout, and that scoring it again gives the same numbers."""

from __future__ import annotations

import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest

from sslbench.cli import main
from sslbench.errors import SslbenchError
from sslbench.io import write_json, write_jsonl
from sslbench.probe.scores import load_board
from sslbench.probe.submit import check_archive, rescore, unlike, unofficial, write_archive
from sslbench.probe.task import Prediction, load_task

BOARD = load_board()


def finished(exp: Path, task: str, rows: dict[str, list[Prediction]], folds: tuple[str, ...] = ("",)) -> None:
    """A finished run of one grid point, as the engine leaves it."""
    folder = exp / task
    facts = {"task": task, "tier": "full", "lr_grid": [0.01], "folds": list(folds)}
    write_json(folder / "run.json", {"identity": {}, "facts": facts})
    for fold in folds:
        unit = folder / fold / "lr-0.01"
        for part, own in rows.items():
            write_jsonl(unit / f"{part}.jsonl", [asdict(row) for row in own])
        write_json(unit / "layer_weights.json", [0.5, 0.5])
        write_json(unit / "done.json", {"lr": 0.01, "fold": fold, "cost": {}})


def rows_of(pairs: list[tuple[str, str, str]]) -> dict[str, list[Prediction]]:
    rows = [Prediction(name, hyp, ref, f"s{i % 3}") for i, (name, hyp, ref) in enumerate(pairs)]
    return {"dev": rows, "test": rows, "test_selected": rows}


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    import numpy as np

    h5py = pytest.importorskip("h5py", reason="pip install 'sslbench[superb]'")
    assert h5py
    from sslbench.downstream.sd.answer import Answer

    folder = tmp_path / "exp"
    finished(folder, "pr", rows_of([("1-2-3", "AA B", "AA B CH"), ("1-2-4", "", "D"), ("2-1-1", "D", "D")]))
    finished(folder, "superb_asr", rows_of([("1-2-3", "A CAT", "THE CAT"), ("1-2-4", "", "ON")]))
    finished(folder, "sf", rows_of([("Ivy-1", "PLAY B-x ANN E-x", "PLAY B-x AN E-x"), ("Joe-1", "A", "B")]))
    words = [("test-yes-a_nohash_0", "yes", "yes"), ("test-no-a_nohash_0", "up", "no")]
    finished(folder, "ks", rows_of(words))
    intent = "turn on, lamp, none"
    finished(folder, "ic", rows_of([("w1", intent, intent), ("w2", "a, b, c", "d, e, f")]))
    finished(folder, "sid", rows_of([("id1-v-1", "id1", "id1"), ("id2-v-1", "id1", "id2")]))
    trials = [("0.9", "1"), ("0.2", "0"), ("0.1", "1"), ("0.3", "0")]
    pairs = [(f"a-{i}|b-{i}", score, same) for i, (score, same) in enumerate(trials)]
    finished(folder, "asv", rows_of(pairs))
    emotions = rows_of([("Ses01F_1", "neu", "neu"), ("Ses01M_1", "sad", "ang")])
    finished(folder, "er", emotions, tuple(f"fold{k}" for k in range(1, 6)))
    finished(
        folder, "qbe", rows_of([("q1", "d1 2.5000 d2 -1.0000 d3 0.1", "d1"), ("q2", "d1 2 d2 1 d3 0", "d2")])
    )
    rng = np.random.default_rng(0)
    talks = [
        (f"mix{i}", Answer(rng.normal(0, 4, (80, 2)).astype("f4"), 320).text(), "a 0.1 0.9;b 0.5 1.5")
        for i in range(3)
    ]
    finished(folder, "sd", rows_of(talks))
    return folder


def test_all_ten_tasks_come_back_with_the_same_scores(exp: Path, tmp_path: Path) -> None:
    out = tmp_path / "submission"
    files = {str(path) for path in write_archive(BOARD, exp, out)}
    assert files == {
        "predict/pr_public/predict.ark", "predict/asr_public/predict.ark", "predict/sf_public/predict.ark",
        "predict/ks_public/predict.txt", "predict/sid_public/predict.txt", "predict/sv_public/predict.txt",
        "predict/ic_public/predict.csv", "predict/qbe_public/benchmark.stdlist.xml",
        *(f"predict/er_fold{k}_public/predict.txt" for k in range(1, 6)),
        *(f"predict/sd_public/scoring/predictions/mix{k}.h5" for k in range(3)),
        "predict/sd_public/frame_shift",
    }  # fmt: skip
    with zipfile.ZipFile(out / "predict.zip") as packed:
        assert set(packed.namelist()) == files
    both = rescore(BOARD, exp, out)
    assert set(both) == set(BOARD.form("paper-10"))
    for name, (before, after) in both.items():
        assert unlike(before, after) == [], name
        assert before, name
    assert check_archive(BOARD, out) == []

    lines = (out / "predict/ks_public/predict.txt").read_text().splitlines()
    assert lines == ["yes-a_nohash_0.wav yes", "no-a_nohash_0.wav up"]  # s3prl's file ids
    assert (out / "predict/ic_public/predict.csv").read_text().startswith("w1,turn on,lamp,none\n")
    assert (out / "predict/sv_public/predict.txt").read_text().startswith("a-0_b-0 0.9\n")
    assert (out / "predict/pr_public/predict.ark").read_text() == "1-2-3 AA B\n1-2-4 \n2-1-1 D\n"
    assert (out / "predict/sd_public/frame_shift").read_text() == "320\n"


def test_a_changed_or_torn_archive_is_noticed(exp: Path, tmp_path: Path) -> None:
    out = tmp_path / "submission"
    write_archive(BOARD, exp, out)
    path = out / "predict/pr_public/predict.ark"
    path.write_text("1-2-3 AA B CH\n1-2-4 \n2-1-1 D\n")
    before, after = rescore(BOARD, exp, out)["pr"]
    assert unlike(before, after) == ["per"]
    path.write_text("1-2-3 AA B CH\n2-1-1 D\n")
    with pytest.raises(SslbenchError, match="has 2 lines for 3 clips"):
        rescore(BOARD, exp, out)
    path.write_text("1-2-3 AA\n2-1-1 D\n1-2-4 D\n")
    with pytest.raises(SslbenchError, match=r"predict.ark:2: is about 2-1-1, not 1-2-4"):
        rescore(BOARD, exp, out)
    path.unlink()
    assert check_archive(BOARD, out) == ["pr is missing"]
    (out / "predict/er_fold3_public/predict.txt").unlink()
    assert check_archive(BOARD, out)[1] == "er lacks er_fold3_public; without all folds it is not scored"
    with pytest.raises(SslbenchError, match="holds an archive already"):
        write_archive(BOARD, exp, out)


def test_the_command_line_writes_checks_and_refuses(
    exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "submission"
    for task in ("sd", "er"):
        (exp / task / "run.json").unlink()
    assert main(["superb", "submit", str(exp), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "not complete: sd is missing" in printed
    assert "NOT EQUAL" not in printed
    assert "not official: pr covers 3 of the 2620 clips of its test set" in printed
    assert "is of tier" not in printed
    run = exp / "pr" / "run.json"
    run.write_text(run.read_text().replace("full", "smoke"))
    assert unofficial(BOARD, exp)[0] == "pr is of tier smoke, not full"
    assert "pr: per 40.00 %" in printed
    assert main(["superb", "submit", str(tmp_path / "none"), "--out", str(out / "x")]) == 2
    assert "holds no task" in capsys.readouterr().err
    assert load_task("pr", "full").headline == "per"
