"""The overall score: the leaderboard's formula on published models, ranks with ties, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from probe_rows import superb_row

from sslbench.cli import main
from sslbench.errors import SslbenchError
from sslbench.probe.overall import overall_row
from sslbench.probe.scores import (
    load_board,
    missing_values,
    rows_by_task,
    superb_r,
    superb_s,
    superb_s_interval,
    tie_groups,
    why_not_official,
)
from sslbench.report import store
from sslbench.report.schema import Metric
from sslbench.report.view import summarise

# PR KS IC SID ER ASR QbE F1 CER ASV SD ST PESQ STOI SS, paper-10, public-10: the SUPERB paper and its
# leaderboard's data file; the two scores were computed from the formula outside this repository
PUBLISHED = dict(
    line.split(": ")
    for line in """\
wav2vec 2.0 Base: 5.74 96.23 92.35 75.18 63.43 6.43 2.33 88.30 24.77 6.02 6.08 14.81 2.55 93.9 9.77 818 674
wav2vec 2.0 Large: 4.75 96.66 95.28 86.14 65.64 3.75 4.89 87.11 27.31 5.65 5.62 14.07 2.52 94.0 10.02 914 781
HuBERT Base: 5.41 96.30 98.34 81.42 64.92 6.42 7.36 88.53 25.20 5.11 5.88 15.53 2.58 93.9 9.36 941 778
HuBERT Large: 3.53 95.29 98.76 90.33 67.62 3.62 3.53 89.81 21.76 5.98 5.75 20.01 2.64 94.2 10.45 919 921
WavLM Base: 4.84 96.79 98.63 84.51 65.94 6.21 8.70 89.38 22.86 4.69 4.55 20.74 2.58 94.0 10.37 1019 970
WavLM Base+: 3.92 97.37 99.00 89.42 68.65 5.59 9.88 90.58 21.20 4.07 3.50 24.25 2.63 94.3 10.85 1106 1155
WavLM Large: 3.06 97.86 99.31 95.49 70.62 3.44 8.86 92.21 18.36 3.77 3.24 26.57 2.70 94.5 11.19 1145 1286
""".splitlines()
)
BOARD = load_board()
NAMES = ["pr", "ks", "ic", "sid", "er", "asr", "qbe", "f1", "cer", "asv", "sd", "st", "pesq", "stoi", "ss"]


def values_of(line: str) -> dict[str, dict[str, float]]:
    named = dict(zip(NAMES, map(float, line.split()[:15]), strict=True))
    values = {
        "sf": {"slot_type_f1": named.pop("f1"), "slot_value_cer": named.pop("cer")},
        "se": {"pesq": named.pop("pesq"), "stoi": named.pop("stoi")},
    }
    return values | {task: {next(iter(BOARD.tasks[task].metrics)): v} for task, v in named.items()}


@pytest.mark.parametrize("system", PUBLISHED)
def test_published_models_have_their_scores(system: str) -> None:
    line = PUBLISHED[system]
    paper, public = map(int, line.split()[15:])
    assert round(superb_s(BOARD, "paper-10", values_of(line))) == paper
    # PESQ and STOI span 0.09 and 0.6 between the anchors and are published rounded, which moves the score
    rounding = 1000 / 10 * (0.005 / 0.09 / 2 + 0.05 / 0.6 / 2 + 0.005 / 1.2173) + 0.5
    assert superb_s(BOARD, "public-10", values_of(line)) == pytest.approx(public, abs=rounding)


def test_the_anchors_score_0_and_1000_and_a_changed_metric_changes_the_score() -> None:
    for name, wanted in (("fbank", 0), ("sota", 1000)):
        values = {
            t: {m: getattr(a, name) for m, a in task.metrics.items()} for t, task in BOARD.tasks.items()
        }
        assert superb_s(BOARD, "public-10", values) == pytest.approx(wanted)
    # the challenge's text prints KS's anchors for SID: with them the scores would be others
    values = values_of(PUBLISHED["HuBERT Base"])
    values["sid"] = {"acc": values["ks"]["acc"]}
    assert round(superb_s(BOARD, "paper-10", values)) != 941


def test_no_score_of_a_part() -> None:
    values = values_of(PUBLISHED["HuBERT Base"])
    del values["er"], values["sf"]["slot_value_cer"]
    assert missing_values(BOARD, "paper-10", values) == ["er", "sf slot_value_cer"]
    with pytest.raises(SslbenchError, match=r"missing er, sf slot_value_cer; there is no score of a part"):
        superb_s(BOARD, "paper-10", values)
    with pytest.raises(SslbenchError, match="paper-10, public-10"):
        superb_s(BOARD, "paper", values)
    with pytest.raises(SslbenchError, match="B lacks er"):
        superb_r(BOARD, "paper-10", {"A": values_of(PUBLISHED["HuBERT Base"]), "B": values})


def test_rivals_beaten() -> None:
    systems = {name: values_of(line) for name, line in PUBLISHED.items()}
    beaten = superb_r(BOARD, "public-10", systems)
    assert max(beaten, key=lambda name: beaten[name]) == "WavLM Large"
    # every pair gives at most one point per task and metric: 7 systems share at most 21 on average
    assert 20 < sum(beaten.values()) <= 21
    two = superb_r(BOARD, "paper-10", {name: systems[name] for name in ("wav2vec 2.0 Base", "WavLM Large")})
    assert two == pytest.approx({"wav2vec 2.0 Base": 0, "WavLM Large": 1})


def metric(value: float, half: float | None, higher: bool = True) -> Metric:
    ends = {} if half is None else {"low": value - half, "high": value + half}
    return Metric(value=value, unit="%", higher_is_better=higher, **ends)


def test_ties_follow_the_intervals() -> None:
    close = {"a": metric(90, 2), "b": metric(89, 2), "c": metric(80, 2), "d": metric(77, 2)}
    assert tie_groups(close) == [["a", "b"], ["c", "d"]]
    errors = {"a": metric(10, 0.5, False), "b": metric(9, 0.2, False), "c": metric(9.1, 0.2, False)}
    assert tie_groups(errors) == [["b", "c"], ["a"]]
    assert tie_groups({"a": metric(90, None), "b": metric(90, None), "c": metric(89.99, None)}) == [
        ["a", "b"],
        ["c"],
    ]


def test_a_score_needs_ten_full_rows_on_official_data() -> None:
    official = {t: superb_row(BOARD, t) for t in BOARD.form("paper-10")}
    assert why_not_official(BOARD, "paper-10", rows_by_task(BOARD, official.values())) == []
    smoke = official | {"er": superb_row(BOARD, "er", tier="smoke")}
    assert why_not_official(BOARD, "paper-10", smoke) == ["er is of tier smoke, not full"]
    synthetic = official | {"pr": superb_row(BOARD, "pr", synthetic=True, corpus="mini")}
    assert why_not_official(BOARD, "paper-10", synthetic) == [
        "pr was measured on synthetic speech",
        "pr was measured on mini, not librispeech",
    ]
    short = official | {"asr": superb_row(BOARD, "asr", n=12)}
    assert why_not_official(BOARD, "paper-10", short) == ["asr covers 12 of the 2620 clips of its test set"]
    untrained = official | {"ks": superb_row(BOARD, "ks").model_copy(update={"weights": "random"})}
    assert why_not_official(BOARD, "paper-10", untrained) == ["ks has random weights"]
    half = official | {"er": superb_row(BOARD, "er").model_copy(update={"cost": {"upstream_bits": 16.0}})}
    assert why_not_official(BOARD, "paper-10", half) == [
        "er was computed with half precision (upstream_bits)"
    ]
    part = {t: row for t, row in official.items() if t not in ("sd", "qbe")}
    assert why_not_official(BOARD, "paper-10", part) == ["qbe is missing", "sd is missing"]
    assert "st is missing" in why_not_official(BOARD, "public-10", official)
    with pytest.raises(SslbenchError, match="two rows measure pr"):
        rows_by_task(BOARD, [official["pr"], official["pr"]])


def test_ranks_are_by_the_leaderboards_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`eer`, chosen on dev, comes first in a row; SUPERB's own is chosen on test."""
    for system, honest, chosen in (("a", 5.0, 9.0), ("b", 9.0, 5.0)):
        row = superb_row(BOARD, "asv", system=system)
        metrics = {"eer": metric(honest, None, False), "eer_test_selected": metric(chosen, None, False)}
        store.save(row.model_copy(update={"metrics": metrics}), tmp_path)
    assert main(["superb", "score", "--results", str(tmp_path)]) == 0
    assert "asv (eer_test_selected; full, voxceleb1, test trials): b > a" in capsys.readouterr().out


def test_the_interval_adds_the_tasks_in_squares() -> None:
    rows = {t: superb_row(BOARD, t) for t in BOARD.form("paper-10")}
    metrics = {t: dict(row.metrics) for t, row in rows.items()}
    value = superb_s(
        BOARD, "paper-10", {t: {k: m.value for k, m in own.items()} for t, own in metrics.items()}
    )
    assert superb_s_interval(BOARD, "paper-10", metrics) == (value, value)
    metrics["pr"]["per"] = metric(metrics["pr"]["per"].value, 7.848, False)
    low, high = superb_s_interval(BOARD, "paper-10", metrics)
    assert high - low == pytest.approx(2 * 10)  # 1000 * 7.848 / 78.48 / 10 tasks
    name = "der_test_selected"
    metrics["sd"][name] = metric(metrics["sd"][name].value, 0.443, False)
    low, high = superb_s_interval(BOARD, "paper-10", metrics)
    assert high - low == pytest.approx(2 * (10**2 + 10**2) ** 0.5)


def test_the_command_line_scores_complete_sets_and_refuses_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in BOARD.form("paper-10"):
        store.save(superb_row(BOARD, task, system="whole"), tmp_path)
        if task != "er":
            store.save(superb_row(BOARD, task, system="part", tier="smoke"), tmp_path)
    assert main(["superb", "score", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "whole: superb_s 1000 [1000, 1000] (paper-10)\n" in printed
    assert "part: no SUPERB score (paper-10): er is missing; pr is of tier smoke, not full" in printed
    row = store.load(tmp_path / "whole" / "superb.json")  # the score is a row from now on
    assert row.metrics["superb_s"].value == pytest.approx(1000)
    assert row.data.hours == len(BOARD.form("paper-10"))
    assert summarise(store.load_all(tmp_path)).quality[0].title == "superb_s"
    store.save(superb_row(BOARD, "er", system="twin"), tmp_path)
    assert main(["superb", "score", "--results", str(tmp_path), "--form", "public-10"]) == 0
    printed = capsys.readouterr().out
    assert "er (acc; full, iemocap, five folds): twin = whole" in printed
    assert "whole: no SUPERB score (public-10): st is missing; se is missing; ss is missing" in printed
    mixed = {task: superb_row(BOARD, task) for task in BOARD.form("paper-10")}
    mixed["er"] = superb_row(BOARD, "er").model_copy(update={"weights_sha256": "f" * 64})
    with pytest.raises(SslbenchError, match="its tasks were run on different weights"):
        overall_row(BOARD, "paper-10", mixed)
    assert main(["superb", "score"]) == 2
    assert "name an experiment folder" in capsys.readouterr().err
