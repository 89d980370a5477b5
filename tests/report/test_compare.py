"""Verdicts from predictions: real differences are shown, others are not, and doubtful files are not used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fake_benchmark as fake
import pytest

from sslbench.cli import main
from sslbench.report import store
from sslbench.report.headline import headlines
from sslbench.report.paired import Comparison, Items, Pair, compare_to, holm, twins
from sslbench.report.predictions import read_items, worst
from sslbench.report.view import Column, summarise


@pytest.fixture(scope="module")
def benchmark_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results/ and exp/."""
    return fake.write_benchmark(tmp_path_factory.mktemp("benchmark")).parent


def _compare(results: Path, reference: str | None = None) -> Comparison:
    return compare_to(summarise(store.load_all(results)), Items(results), reference)


def test_a_real_difference_is_shown_and_a_small_one_is_not(benchmark_dir: Path) -> None:
    pairs = {
        (p.column.evaluation, p.system): p
        for p in _compare(benchmark_dir / "results", "zipformer-mini").pairs
    }
    assert len(pairs) == 3 * 4
    assert "worse" in pairs["asr", "fbank"].sentence
    assert pairs["asr", "fbank"].low > 40
    assert "no difference shown" in pairs["asr", "hubert-k2ssl-mini"].sentence
    assert pairs["sid", "fbank"].difference < 0
    assert "worse" in pairs["sid", "fbank"].sentence


def test_the_difference_is_that_of_the_rows(benchmark_dir: Path) -> None:
    rows = {
        (r.system, r.evaluation): next(iter(r.metrics.values())).value
        for r in store.load_all(benchmark_dir / "results")
    }
    for pair in _compare(benchmark_dir / "results").pairs:
        evaluation = pair.column.evaluation
        gap = rows[pair.system, evaluation] - rows[pair.reference, evaluation]
        assert pair.difference == pytest.approx(gap)
        assert pair.low <= pair.difference <= pair.high


def test_predictions_that_do_not_give_the_score_are_not_used(benchmark_dir: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(benchmark_dir / "results", results)
    path = results / "fbank" / "asr" / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, "hyp": line["ref"]}) + "\n" for line in lines))
    (results / "hubert-orig-mini" / "asr" / "predictions.jsonl").unlink()
    untested = [line for line in _compare(results).untested if "ASR" in line]
    assert any("fbank: predictions give 0.00, not the row's" in line for line in untested)
    assert any("hubert-orig-mini: no predictions on disk" in line for line in untested)


def test_a_score_is_met_to_a_hundredth_of_a_point(benchmark_dir: Path) -> None:
    row = store.load(store.row_path(benchmark_dir / "results", "fbank", "asr"))
    wer = row.metrics["wer"]
    for off, used in ((0.005, True), (0.02, False)):
        changed = wer.model_copy(update={"value": wer.value + off})
        near = row.model_copy(update={"metrics": {"wer": changed}})
        assert isinstance(read_items(near, benchmark_dir / "results"), dict) == used


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"id": "utt-001"', '"id": "utt-000"', "fbank: 1 predictions have the name of another"),
        ('"ref": "', '"ref": "A', "their references differ"),
    ],
)
def test_doubtful_predictions_are_not_tested(
    benchmark_dir: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    shutil.copytree(benchmark_dir / "results", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "fbank" / "asr" / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    counts = [sum(a != b for a, b in zip(x["ref"].split(), x["hyp"].split(), strict=True)) for x in lines]
    counted = zip(lines, counts, strict=True)
    rows = [{**x, "errors": errors, "length": len(x["ref"].split())} for x, errors in counted]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not [line for line in _compare(tmp_path).untested if "ASR" in line]  # counts alone change nothing
    path.write_text(path.read_text().replace(old, new))
    assert any(said in line for line in _compare(tmp_path).untested)


@pytest.mark.parametrize("difference", [2.0, -2.0])
def test_the_gap_in_words_keeps_the_interval_s_signs(difference: float) -> None:
    rows = [store.make_row(**fake.fields(name)) for name in ("best", "next")]
    rows[1].metrics["wer"].value += 2.0
    summary = summarise(rows)
    names = ("best", "next") if difference > 0 else ("next", "best")
    ends = sorted((-0.1 * difference / 2.0, difference * 2))
    pair = Pair(summary.quality[0], *names, difference, *ends, 0.04, 9, p_corrected=0.04)
    (line,) = headlines(summary, Comparison([pair], []))
    assert "next is 2.00 points behind [-0.10, 4.00], p = 0.040." in line


def test_different_utterances_are_not_paired(benchmark_dir: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(benchmark_dir / "results", results)
    path = results / "fbank" / "asr" / "predictions.jsonl"
    path.write_text(path.read_text().replace('"id": "utt-000"', '"id": "utt-999"'))
    assert any(
        "different utterances (150 and 150, 149 shared)" in line for line in _compare(results).untested
    )


def test_worst_utterances_have_the_most_edits(benchmark_dir: Path) -> None:
    row = next(
        r for r in store.load_all(benchmark_dir / "results") if (r.system, r.evaluation) == ("fbank", "asr")
    )
    items = read_items(row, benchmark_dir / "results")
    assert isinstance(items, dict)
    top = worst(items, 3)
    assert len(top) == 3
    assert top[0].errors == max(item.errors for item in items.values())


def test_holm_equals_a_worked_example() -> None:
    column = Column("asr", "wer", "WER", "%", False, True)
    pairs = [Pair(column, "a", "b", 1, 0, 2, p, 10) for p in (0.01, 0.04, 0.03, 0.005)]
    holm(pairs)
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made monotone
    assert [round(pair.p_corrected, 6) for pair in pairs] == [0.03, 0.06, 0.06, 0.02]


def test_the_command_tests_against_the_first_system(
    benchmark_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = str(benchmark_dir / "results")
    assert main(["compare", "hubert-k2ssl-mini", "fbank", "--results", results]) == 0
    printed = capsys.readouterr().out
    assert "ASR WER: fbank against hubert-k2ssl-mini: worse" in printed
    assert "zipformer" not in printed.split("Side by side")[1].replace("zipformer_tiny", "")


def test_rows_are_filtered(benchmark_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--results", str(benchmark_dir / "results"), "--tier", "short", "--evaluation"]
    assert main([*words, "asr"]) == 0
    printed = capsys.readouterr().out
    assert "ASR WER" in printed
    assert not {"SID", "MACs"} & set(printed.split())
    assert main([*words, "pretrain", "--", "fbank", "zipformer-mini"]) == 0  # the reference has no such row
    assert main([*words, "nosuch"]) == 2
    assert "has no row of this evaluation and tier" in capsys.readouterr().err


def test_an_unknown_system_is_helped_with(benchmark_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "fbnk", "--results", str(benchmark_dir / "results")]) == 2
    assert "has no system 'fbnk'; did you mean fbank?" in capsys.readouterr().err


def test_rows_without_predictions_are_shown_but_not_tested(tmp_path: Path) -> None:
    for system in ("a", "b"):
        store.save(store.make_row(**fake.fields(system)), tmp_path)
    found = _compare(tmp_path)
    assert found.pairs == []
    assert "not tested" in found.untested[0]


def _untrained(results: Path, name: str, copied: str = "zipformer-random", **changes: object) -> None:
    """A copy of an untrained system's ASR row and predictions under another name."""
    row = store.load(store.row_path(results, copied, "asr"))
    shutil.copytree(results / copied / "asr", results / name / "asr")
    store.save(row.model_copy(update={"system": name, **changes}), results)


def test_an_untrained_twin_is_taken_only_where_it_is_clear(benchmark_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(benchmark_dir / "results", tmp_path, dirs_exist_ok=True)

    def found(results: Path) -> tuple[set[str], list[str]]:
        summary = summarise(store.load_all(results))
        pairs, problems = twins(summary, summary.quality[0])
        return {f"{untrained} {trained}" for untrained, trained in pairs}, problems

    clear = {"zipformer-random zipformer-mini"}
    assert found(tmp_path) == (clear, [])
    row = store.load(store.row_path(tmp_path, "zipformer-mini", "asr"))
    for name in ("zipformer-mini", "zipformer-random"):
        sized = store.load(store.row_path(tmp_path, name, "asr")).model_copy(
            update={"cost": {"params_trainable": 5}}
        )
        store.save(sized, tmp_path)
    _untrained(tmp_path, "larger", cost={"params_trainable": 9})
    _untrained(tmp_path, "thorough", tier="full")
    _untrained(tmp_path, "other-engine", methods={"engine": "s3prl"})
    assert found(tmp_path) == (clear, [])
    _untrained(tmp_path, "z-again")
    assert found(tmp_path) == (set(), [
        "ASR WER: zipformer-mini has no clear untrained twin (more than one may be z-again, zipformer-random)"
    ])  # fmt: skip
    store.row_path(tmp_path, row.system, row.evaluation).unlink()
    store.save(row.model_copy(update={"tier": "smoke"}), tmp_path)
    assert "differs in tier, method or size: " in found(tmp_path)[1][0]
    assert found(tmp_path)[1][0] in _compare(tmp_path).untested


def test_a_reference_without_a_score_is_named(benchmark_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(benchmark_dir / "results", tmp_path, dirs_exist_ok=True)
    store.row_path(tmp_path, "fbank", "asr").unlink()
    assert _compare(tmp_path, "fbank").untested == ["ASR WER: nothing tested, fbank has no such score"]
