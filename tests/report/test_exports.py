"""Cards, LaTeX, readings and the live page say what the rows say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_benchmark as fake
import pytest
import yaml

from sslbench.report import card, html, latex, store
from sslbench.report.content import commands, gather
from sslbench.report.markdown import bars, results_md, summary_cells
from sslbench.report.paired import Comparison, Pair
from sslbench.report.readings import readings
from sslbench.report.schema import ResultRow
from sslbench.report.stats import mcnemar
from sslbench.report.view import TIED, summarise


def profile(system: str, macs_g: float, **cost: float) -> dict[str, object]:
    names = {"macs_g": macs_g, "params_total": 94e6, "params_active": 90e6, "macs_short_g": macs_g / 10}
    metrics = {name: {"value": v, "unit": "G", "higher_is_better": False} for name, v in names.items()}
    return fake.fields(system, "profile", metrics=metrics, cost=cost)


def score(system: str, wer: float) -> dict[str, object]:
    return fake.fields(system, "asr", metrics={"wer": {"value": wer, "unit": "%", "higher_is_better": False}})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """a is dominated by b; c is cheaper and worse."""
    for system, wer, macs_g in (("a", 12.0, 1600.0), ("b", 10.0, 800.0), ("c", 20.0, 200.0)):
        store.save(store.make_row(**score(system, wer)), tmp_path)
        row = profile(system, macs_g, macs_at_5s_g=macs_g / 40, macs_at_600s_g=macs_g * 4)
        store.save(store.make_row(**row), tmp_path)
    return tmp_path


def test_only_dominated_systems_are_read_out_with_what_their_test_says(results: Path) -> None:
    summary = summarise(store.load_all(results))
    (column,) = summary.quality
    said = "ASR WER at the MACs of a (1600 G): b reaches 10.00 %, a 12.00 %{}; "
    said += "b scores no worse for 2.0 times less."
    for tests, doubt in (
        ([], " (not tested)"),
        ([Pair(column, "b", "a", 2.0, -1.0, 5.0, 0.2, 9, p_corrected=0.2)], " (no difference shown)"),
        ([Pair(column, "b", "a", 2.0, 1.0, 3.0, 0.001, 9, p_corrected=0.001)], ""),
    ):
        assert readings(summary, Comparison(tests, [])) == [said.format(doubt)]


def test_equal_costs_are_not_called_cheaper(tmp_path: Path) -> None:
    for system, wer in (("a", 12.0), ("b", 10.0)):
        store.save(store.make_row(**score(system, wer)), tmp_path)
        store.save(store.make_row(**profile(system, 800.0)), tmp_path)
    assert readings(summarise(store.load_all(tmp_path)), Comparison([], [])) == [
        "ASR WER at the MACs of a (800 G): b reaches 10.00 %, a 12.00 % (not tested)."
    ]


def test_an_equal_score_for_less_is_read_out_and_equals_alone_are_not(tmp_path: Path) -> None:
    for system, macs_g in (("a", 800.0), ("b", 400.0), ("c", 400.0)):
        store.save(store.make_row(**score(system, 10.0)), tmp_path)
        store.save(store.make_row(**profile(system, macs_g)), tmp_path)
    assert readings(summarise(store.load_all(tmp_path)), Comparison([], [])) == [
        "ASR WER at the MACs of a (800 G): b reaches 10.00 %, a 10.00 % (not tested); "
        "b scores no worse for 2.0 times less."
    ]


def test_the_card_is_read_by_the_hub_s_own_library(results: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    (system,) = [s for s in summarise(store.load_all(results)).systems if s.name == "b"]
    text = card.model_card(system)
    (found,) = hub.ModelCard(text).data.eval_results
    assert (found.task_type, found.metric_type, found.metric_value) == (
        "automatic-speech-recognition",
        "wer",
        10.0,
    )
    assert "Synthetic speech" in text  # the caution travels with the figures


def test_the_card_names_every_code_and_machine(results: Path) -> None:
    def measured() -> list[str]:
        (system,) = [s for s in summarise(store.load_all(results)).systems if s.name == "b"]
        return [line for line in card.model_card(system).splitlines() if line.startswith("Measured")]

    here = "with sslbench at 0123456789 on AMD EPYC 9655 96-Core Processor"
    assert measured() == [f"Measured {here}, 2026-11-21."]
    stamp = fake.stamp(gpu="H200", dirty=True, created_utc="2026-11-22T01:00:00+00:00")
    store.save(store.make_row(**{**score("b", 10.0), "provenance": stamp}), results)
    assert measured() == [
        f"Measured {here}, 2026-11-21 (profile).",
        "Measured with sslbench at 0123456789 + changes on H200, 2026-11-22 (asr).",
    ]


def test_the_form_has_every_field_and_whole_macs(results: Path) -> None:
    (system,) = [s for s in summarise(store.load_all(results)).systems if s.name == "b"]
    form = card.superb_form(system)
    assert form["macs"] == 800_000_000_000
    assert form["macsShort"] == 80_000_000_000
    assert form["macsLonger"] is None
    assert {"submitName", "modelURL", "modelDesc", "stride", "inputFormat", "corpus", "task"} <= set(form)


def test_latex_escapes_and_marks_the_best(results: Path) -> None:
    row = score("under_score", 30.0)
    store.save(store.make_row(**row), results)
    table = latex.table(summarise(store.load_all(results)))
    assert r"under\_score" in table
    assert r"\textbf{10.00}" in table
    assert r"ASR WER (\%) $\downarrow$" in table
    assert all(line.count("&") == table.splitlines()[3].count("&") for line in table.splitlines()[5:-2])


def test_a_tie_is_marked_and_the_best_is_not(tmp_path: Path) -> None:
    content = gather(fake.write_benchmark(tmp_path))
    marked = {pair.system for pair in content.comparison.pairs if not pair.shown} | {
        pair.reference for pair in content.comparison.pairs if not pair.shown
    }
    for column in content.summary.quality:
        best = content.summary.measured(column)[0][0]
        assert not content.summary.cell(best, column).mark
        for system in content.summary.systems:
            if content.summary.cell(system, column).mark:
                assert system.name in marked
    assert set(content.summary.marks.values()) == {TIED}


def test_what_was_not_tested_is_not_taken_for_worse(results: Path) -> None:
    content = gather(results)  # rows without predictions
    header, lines = summary_cells(content.summary)
    assert {line[0]: line[header.index("ASR WER (%) ↓")] for line in lines} == {
        "a": "12.00 ?", "b": "**10.00**", "c": "20.00 ?"
    }  # fmt: skip
    assert "? those that were not tested against it; unmarked ones were shown to be worse" in results_md(
        content
    )


def test_growth_is_drawn_where_it_was_measured(results: Path) -> None:
    pytest.importorskip("matplotlib")
    from sslbench.report.growth import growth_figures

    (figure,) = growth_figures(summarise(store.load_all(results)))
    assert "b from 4 at 5 s to 5.33 at 600 s" in figure.alt
    assert growth_figures(summarise([store.make_row(**score("x", 1.0))])) == []


def test_a_system_looks_the_same_in_every_figure(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure as Canvas

    from sslbench.report import growth, plots, strips, style

    summary = summarise(store.load_all(results))
    assert [system.name for system in summary.systems] == ["b", "a", "c"]  # not the alphabet's order
    looks: dict[str, set[str]] = {"a": set(), "b": set(), "c": set()}

    def drawn(title: str, alt: str, draw: object, size: object = None) -> str:
        axes = Canvas().add_subplot()
        draw(axes)
        handles, labels = axes.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            looks[label].add(str(getattr(handle, "lines", [handle])[0].get_color()))
        return alt

    monkeypatch.setattr(style, "render", drawn)
    growth.growth_figures(summary)
    plots.trade_offs(summary)
    strips.strips("costs", summary, summary.columns, log=True)
    assert [len(colours) for colours in looks.values()] == [1, 1, 1], looks
    assert len(set.union(*looks.values())) == 3


def test_curves_are_drawn_in_results_md(tmp_path: Path) -> None:
    assert bars([1.0]) == "▁"
    assert bars([float(n) for n in range(100)]) == "".join(sorted(bars([float(n) for n in range(100)])))
    assert len(bars([float(n) for n in range(100)])) == 24
    results = fake.write_benchmark(tmp_path)
    text = results_md(gather(results, sorted((tmp_path / "exp").iterdir())))
    (line, *_) = [line for line in text.splitlines() if "Pretraining loss" in line and "(dev)" not in line]
    assert "█" in line


@pytest.mark.parametrize(("only_a", "only_b", "p"), [(0, 0, 1.0), (1, 9, 0.021484375), (5, 5, 1.0)])
def test_mcnemar_equals_the_binomial(only_a: int, only_b: int, p: float) -> None:
    a = [True] * only_a + [False] * only_b + [True] * 20
    b = [False] * only_a + [True] * only_b + [True] * 20
    assert mcnemar(a, b) == pytest.approx(p)


def test_the_page_is_written_again_while_rows_arrive(tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    command = [sys.executable, "-m", "sslbench", "report", str(results), "--out", str(out), "--watch", "0.2"]
    watcher = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # a shell's background jobs ignore Ctrl-C, and so would this child of theirs
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert watcher.stdout is not None
        assert "waiting" in watcher.stdout.readline()
        for count, system in enumerate(("a", "b"), 1):
            store.save(store.make_row(**score(system, 10.0)), results)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and _rows(out) != count:
                time.sleep(0.1)
            assert _rows(out) == count
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) in (0, 130)
    finally:
        watcher.kill()


def _rows(out: Path) -> int:
    path = out / "results.json"
    return len(json.loads(path.read_text())) if path.is_file() else 0


def test_front_matter_is_plain_yaml(results: Path) -> None:
    (system, *_) = summarise(store.load_all(results)).systems
    head = card.model_card(system).split("---")[1]
    assert yaml.safe_load(head)["library_name"] == "sslbench"


def test_a_wide_summary_is_split_evenly_and_loses_nothing(tmp_path: Path) -> None:
    summary = summarise(store.load_all(fake.write_large(tmp_path)))
    assert [len(columns) for columns in summary.tables] == [3, 3, 7]
    assert [column for columns in summary.tables for column in columns] == summary.columns
    narrow = summarise(store.load_all(fake.write_benchmark(tmp_path / "small"))[:1])
    assert narrow.tables == [narrow.columns]


def test_fine_tuning_s_cost_stands_beside_its_score(results: Path) -> None:
    pytest.importorskip("jinja2")
    content = gather(results)
    assert "Fine-tuning cost" not in results_md(content) + html.page(content)
    cost = {"params_trainable": 700_000.0, "step_s": 0.63082, "peak_mem_bytes": 2.0**30, "wall_s": 445.4}
    row = store.make_row(**{**score("a", 12.0), "cost": cost, "methods": {"tune": "frozen"}})
    store.save(row, results)
    content = gather(results)
    assert "| a | asr | 12.00 % | frozen | 0.70 M | 0.631 s | 1024 MiB | 445 s |" in results_md(content)
    assert "<td>0.631 s</td>" in html.page(content)


def test_commands_stand_under_the_commit_that_they_ran_at() -> None:
    def row(system: str, hour: int, commit: str, command: str, dirty: bool = False) -> ResultRow:
        made = {"created_utc": f"2026-11-21T{hour:02}:00:00+00:00", "commit": commit, "command": command}
        return store.make_row(**fake.fields(system, provenance=fake.stamp(**made, dirty=dirty)))

    rows = [row("a", 3, "bbb", "late"), row("b", 1, "aaa", "early"), row("c", 2, "bbb", "middle")]
    rows += [
        row("d", 4, "bbb", "late"),
        row("e", 5, "aaa", "last", dirty=True),
        row("f", 6, "installed", "x"),
    ]
    assert commands(rows) == [
        "git checkout aaa", "early", "git checkout bbb", "middle", "late",
        "git checkout aaa  # and uncommitted changes", "last", "# installed package", "x",
    ]  # fmt: skip


def test_published_figures_stand_apart_in_results_md(results: Path) -> None:
    measured, published = results_md(gather(results)).split("## Published by others")
    assert "| HuBERT Base |" in published
    assert "HuBERT Base" not in measured
    assert "Source: " in published
