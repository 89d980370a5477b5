"""Everything a report says, gathered once, before any format renders it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sslbench.report import store
from sslbench.report.cautions import cautions
from sslbench.report.curves import Curve, read_runs
from sslbench.report.headline import headlines
from sslbench.report.layers import read_layer_weights
from sslbench.report.paired import Comparison, Items, compare_to, mark_against_best
from sslbench.report.predictions import Item, aligned, whole_list, worst
from sslbench.report.readings import readings
from sslbench.report.schema import ResultRow
from sslbench.report.view import Summary, summarise

MAX_WORST = 40
"""Lists of worst utterances, over all systems and scores."""


@dataclass
class Worst:
    """The utterances that one system gets most wrong in one score."""

    title: str
    items: list[tuple[Item, list[tuple[str, str]]]]
    """With their words aligned: (said, heard)."""
    whole: str
    """The file that lists all errors, from the folder that holds the results folder."""


@dataclass
class Content:
    """A report without its form."""

    rows: list[ResultRow]
    summary: Summary
    comparison: Comparison
    cautions: list[str]
    headlines: list[str]
    trade_offs: list[str]
    """Quality at equal cost and cost at equal quality, in words."""
    curves: list[Curve]
    layer_weights: dict[str, dict[str, list[float]]]
    worst: list[Worst]
    commands: list[str]
    problems: list[str]
    """What was asked for and could not be shown."""


def gather(results: Path, runs: Sequence[Path | str] = ()) -> Content:
    """Read a results folder and training logs.

    Args:
        results: folder of SYSTEM/EVALUATION.json.
        runs: experiment folders with `log.jsonl`.

    Raises:
        SslbenchError: no rows, or a refused one.
    """
    rows = store.load_all(results)
    summary = summarise(rows)
    items = Items(results)
    comparison = compare_to(summary, items)
    mark_against_best(summary, comparison)
    curves, problems = read_runs(runs)
    return Content(
        rows=rows,
        summary=summary,
        comparison=comparison,
        cautions=cautions(rows),
        headlines=headlines(summary, comparison),
        trade_offs=readings(summary, comparison),
        curves=curves,
        layer_weights=read_layer_weights(rows, results),
        worst=_worst(summary, items, results),
        commands=commands(rows),
        problems=problems,
    )


def _worst(summary: Summary, items: Items, results: Path) -> list[Worst]:
    lists: list[Worst] = []
    for column in summary.quality:
        if column.higher_is_better:
            continue  # a wrong answer is not more wrong than another
        for system, _ in summary.measured(column):
            row = system.rows[column.evaluation]
            found = items.of(row)
            if not isinstance(found, str) and len(lists) < MAX_WORST and (top := worst(found)):
                shown = [(item, aligned(item)) for item in top]
                lists.append(Worst(f"{column.title}, {system.name}", shown, whole_list(row, results)))
    return lists


def commands(rows: Sequence[ResultRow]) -> list[str]:
    """The shell lines that wrote the rows, each once, under the commit that they ran at; oldest first."""
    by_commit: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row.provenance.created_utc):
        stamp = row.provenance
        known = "# installed package" if stamp.commit == "installed" else f"git checkout {stamp.commit}"
        head = known + ("  # and uncommitted changes" if stamp.dirty else "")
        by_commit.setdefault(head, []).append(" ".join(stamp.command.split()))
    return [line for head, ran in by_commit.items() for line in (head, *dict.fromkeys(ran))]
