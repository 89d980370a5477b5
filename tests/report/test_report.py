"""The page and the tables say what the rows say, safely and offline."""

from __future__ import annotations

import base64
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import fake_benchmark as fake
import pytest

from sslbench.cli import main
from sslbench.report import numbers, plots, store, style
from sslbench.report.build import build
from sslbench.report.content import Content
from sslbench.report.strips import strips

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
HOSTILE = "<script>alert(1)</script>|`$x$`&\"'![x](http://x)"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def benchmark_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results/ and exp/."""
    return fake.write_benchmark(tmp_path_factory.mktemp("benchmark")).parent


@pytest.fixture(scope="module")
def built(benchmark_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Content, Path]:
    out = tmp_path_factory.mktemp("report")
    content, _ = build(
        benchmark_dir / "results", out, sorted((benchmark_dir / "exp").iterdir()), out / "recipe.md"
    )
    return content, out


def test_the_page_is_one_file_without_network_or_script(built: tuple[Content, Path]) -> None:
    html = (built[1] / "index.html").read_text()
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.values("href") == []
    assert page.values("src")
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.values("src"))
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "url(" not in html
    assert "@import" not in html
    assert "http:" not in html
    assert "https:" not in html
    assert any("default-src 'none'" in value for value in page.values("content"))


def test_every_figure_has_a_text_and_both_themes(built: tuple[Content, Path]) -> None:
    page = Page((built[1] / "index.html").read_text())
    alts = page.values("alt")
    assert len(alts) == page.tags.count("img") == 2 * page.tags.count("figure")
    # trade-offs, scores, curves, layer weights, all scores and all costs at once
    assert page.tags.count("figure") == 8 + 3 + 5 + 3 + 2
    assert min(map(len, alts)) > 40
    assert any("ASR WER (%) against MACs" in alt and "front: fbank, zipformer-mini." in alt for alt in alts)


def test_quality_stands_against_every_kind_of_cost(built: tuple[Content, Path]) -> None:
    costs = ["MACs", "Pretraining time", "RTF", "Training memory"]
    figures = plots.trade_offs(built[0].summary)
    assert [figure.title for figure in figures[:4]] == [f"ASR WER against {cost}" for cost in costs]
    trained = "zipformer-mini, hubert-k2ssl-mini and hubert-orig-mini were pretrained"
    assert "for 3 systems" in figures[1].alt, trained
    assert "(MiB)" in figures[3].alt


def test_scores_and_costs_at_once_name_best_and_worst(built: tuple[Content, Path]) -> None:
    summary = built[0].summary
    (scores,) = strips("All scores at once", summary, summary.quality)
    assert "ASR WER (%) best zipformer-mini" in scores.alt
    assert "worst fbank" in scores.alt
    (costs,) = strips("All costs at once", summary, summary.costs, log=True)
    assert (
        "Pretraining time (device-hours) best zipformer-mini 40.0 h, worst hubert-orig-mini 90.0 h"
        in costs.alt
    )
    assert "Parameters (M) best hubert-k2ssl-mini 1.24 M, worst" in costs.alt  # fbank has 0
    assert costs.alt.count("zero is left out") == 1
    assert scores.light != scores.dark
    assert strips("one line is no figure", summary, summary.quality[:1]) == []


def test_every_number_of_every_row_is_in_results_md_and_on_the_page(built: tuple[Content, Path]) -> None:
    content, out = built
    markdown, page = (out / "RESULTS.md").read_text(), Page((out / "index.html").read_text())
    assert (out / "recipe.md").read_text() == markdown
    tables = (
        [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()],
        [[cell.strip() for cell in row] for row in page.rows],
    )
    for row in content.rows:
        for name, metric in row.metrics.items():
            for table in tables:
                (found,) = (
                    line
                    for line in table
                    if len(line) == 8 and [line[i] for i in (0, 1, 5)] == [row.system, row.evaluation, name]
                )
                assert found[3:5] == [row.tier, row.weights]
                assert found[6] == numbers.metric(metric)


def test_json_and_csv_hold_the_rows_exactly(built: tuple[Content, Path]) -> None:
    content, out = built
    assert json.loads((out / "results.json").read_text()) == [
        row.model_dump(mode="json") for row in content.rows
    ]
    with (out / "results.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == sum(len(row.metrics) for row in content.rows)
    first = next(iter(content.rows[0].metrics.items()))
    assert lines[0]["metric"] == first[0]
    assert float(lines[0]["value"]) == first[1].value


def test_warnings_come_first_and_name_the_systems(built: tuple[Content, Path]) -> None:
    content, out = built
    kinds = [line.split(":")[0] for line in content.cautions]
    assert kinds == ["Synthetic speech", "Random weights", "Short tier"]
    assert "zipformer-random" in content.cautions[1]
    page = Page((out / "index.html").read_text()).text
    assert page.index("Read this first") < page.index("In short") < page.index("Summary")


def test_plain_words_name_the_best_and_whether_it_is(built: tuple[Content, Path]) -> None:
    lines = built[0].headlines
    assert lines[0].startswith("ASR WER on mini test-clean is lowest for zipformer-mini: ")
    assert "no difference to hubert-k2ssl-mini is shown" in lines[0]
    assert lines[-1].startswith("fbank needs the fewest MACs (0.610 G), 40 times fewer than ")


def test_curves_skip_torn_lines_and_missing_runs_are_named(benchmark_dir: Path, tmp_path: Path) -> None:
    runs = [benchmark_dir / "exp" / "asr-zipformer", tmp_path / "nowhere"]
    content, _ = build(benchmark_dir / "results", tmp_path / "out", runs)
    assert {curve.title for curve in content.curves} == {
        "Fine-tuning loss", "Fine-tuning dev WER", "Fine-tuning dev CER",
    }  # fmt: skip
    everything, _ = build(benchmark_dir / "results", tmp_path / "out", [benchmark_dir / "exp"])
    assert {curve.run for curve in everything.curves} == {
        "asr-zipformer",
        "pretrain-hubert",
        "pretrain-zipformer",
    }
    assert len(content.problems) == 1
    assert "nowhere: no training curve" in content.problems[0]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    data = {"corpus": HOSTILE, "split": HOSTILE, "synthetic": False, "hours": 1.0}
    stamp = fake.stamp(command=f"sslbench score {HOSTILE}", cpu=HOSTILE)
    for system in ("one", "two"):
        store.save(
            store.make_row(**fake.fields(system, data=data, provenance=stamp, upstream=HOSTILE)),
            tmp_path / "r",
        )
    build(tmp_path / "r", tmp_path / "out")
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert "script" not in page.tags
    assert HOSTILE in page.text
    markdown = (tmp_path / "out" / "RESULTS.md").read_text()
    card = (tmp_path / "out" / "cards" / "one" / "README.md").read_text().split("---", 2)[2]
    for text in (markdown.split("```")[0], card):
        assert "<script>" not in text
        assert "![x](" not in text
    (line,) = [line for line in card.splitlines() if line.startswith("| asr |")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 5
    table = [line for line in markdown.splitlines() if line.startswith("| one | asr |")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {9, 12}


def test_missing_evaluations_are_dashes(tmp_path: Path) -> None:
    store.save(store.make_row(**fake.fields("both", "asr")), tmp_path / "r")
    store.save(store.make_row(**fake.fields("both", "pr")), tmp_path / "r")
    store.save(store.make_row(**fake.fields("half", "pr")), tmp_path / "r")
    build(tmp_path / "r", tmp_path / "out")
    line = next(
        x for x in (tmp_path / "out" / "RESULTS.md").read_text().splitlines() if x.startswith("| half |")
    )
    assert line.split("|")[3].strip() == numbers.ABSENT


def test_one_row_is_enough(tmp_path: Path) -> None:
    store.save(store.make_row(**fake.fields()), tmp_path / "r")
    content, _ = build(tmp_path / "r", tmp_path / "out")
    assert "nothing to compare it with yet" in content.headlines[0]


def test_mismatched_rows_are_warned_about(tmp_path: Path) -> None:
    other = {"corpus": "mini", "split": "test-other", "synthetic": False, "hours": 1.0}
    plain = fake.fields("a", tier="smoke", methods={"engine": "s3prl"}, flags=["two of 9 clips were skipped"])
    store.save(store.make_row(**plain), tmp_path / "r")
    dirty = fake.stamp(dirty=True)
    store.save(store.make_row(**fake.fields("b", data=other, tier="full", provenance=dirty)), tmp_path / "r")
    changed = fake.fields("b", "pr", data=other, tier="full", weights_sha256="f" * 64)
    store.save(store.make_row(**changed), tmp_path / "r")
    for system, gib in (("a", 4), ("b", 8)):
        limited = fake.fields(system, "profile", methods={"longest_batch": f"within {gib} GiB"})
        store.save(store.make_row(**limited), tmp_path / "r")
    for system, machine in (("a", {"machine": "H200"}), ("b", {"machine": "CPU, 2 threads"}), ("c", {})):
        store.save(store.make_row(**fake.fields(system, "pretrain", methods=machine)), tmp_path / "r")
    content, _ = build(tmp_path / "r", tmp_path / "out")
    text = "\n".join(content.cautions)
    for kind in (
        "Smoke tier",
        "Mismatched data: asr",
        "Mismatched tiers: asr",
        "Mismatched weights",
        "Mismatched methods: asr rows differ in engine: not stated / s3prl.",
        "Mismatched costs: longest batches were measured in different ways: within 4 GiB / within 8 GiB.",
        "Mismatched machines: pretraining times are of different ones: "
        "CPU, 2 threads / H200 / a machine that was not noted.",
        "Uncommitted code",
    ):
        assert kind in text
    for name in ("RESULTS.md", "index.html"):
        written = (tmp_path / "out" / name).read_text()
        assert "a, asr: two of 9 clips were skipped" in written
        assert "engine: s3prl" in written


def test_every_figure_is_drawn_once_and_the_dark_one_has_the_other_ink(
    benchmark_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    draw = style._svg
    monkeypatch.setattr(style, "_svg", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    build(benchmark_dir / "results", tmp_path)
    pictures = [
        base64.b64decode(source.partition(",")[2]).decode()
        for source in Page((tmp_path / "index.html").read_text()).values("src")
    ]
    assert sorted(pictures[::2]) == sorted(drawn)
    inks = {style.INK, style.FAINT, style.FRONT, *style.COLOURS}
    for light, dark in zip(pictures[::2], pictures[1::2], strict=True):
        assert style.INK in light
        assert not inks & set(re.findall(r"#[0-9a-f]{6}", dark))
        assert len(dark) == len(light)


def test_a_report_of_200_rows(tmp_path: Path) -> None:
    content, _ = build(fake.write_large(tmp_path / "r"), tmp_path / "out")
    assert len(content.rows) == 200
    assert len(content.comparison.pairs) == 6 * 24  # every system against the best of each score


def test_the_command_prints_table_and_paths(
    benchmark_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(benchmark_dir / "results"), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("caution: Synthetic speech")
    assert "zipformer-mini" in printed
    for name in ("index.html", "RESULTS.md", "results.json", "results.csv"):
        assert f"wrote {tmp_path / name}" in printed


def test_no_rows_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "holds no result rows" in capsys.readouterr().err


def test_a_report_never_lies_among_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.save(store.make_row(**fake.fields("a")), tmp_path)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "report")]) == 2
    assert "would lie among the rows" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_the_worst_utterances_are_aligned_and_the_whole_list_is_named(
    built: tuple[Content, Path], benchmark_dir: Path
) -> None:
    content, out = built
    for worst in content.worst:
        for item, pairs in worst.items:
            assert [said for said, _ in pairs if said] == item.reference.split()
            assert [heard for _, heard in pairs if heard] == item.hypothesis.split()
            assert sum(said != heard for said, heard in pairs) == item.errors
        assert (benchmark_dir / worst.whole).is_file()
    page = (out / "index.html").read_text()
    assert '<span class="wrong"><span>' in page
    assert "All errors: results/fbank/asr/predictions.jsonl" in page
