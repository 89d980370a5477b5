"""RESULTS.md: the page in Markdown, with bars for its training curves and without its other figures."""

from __future__ import annotations

from collections.abc import Sequence

from sslbench.report import numbers, published
from sslbench.report.content import Content
from sslbench.report.curves import Curve
from sslbench.report.schema import ResultRow
from sslbench.report.view import MARKS, Summary


def results_md(content: Content) -> str:
    """The whole file."""
    summary = content.summary
    parts = ["# Results", ""]
    if content.cautions:
        parts += ["**Read this first.**", "", *(f"- {plain(line)}" for line in content.cautions), ""]
    parts += [*(f"- {plain(line)}" for line in content.headlines), ""] if content.headlines else []
    parts += ["## Summary", "", *table(*summary_cells(summary)), ""]
    parts += [
        f"Square brackets hold 95 % intervals; bold is a column's best. {MARKS} ↓ lower is better, ↑ higher.",
        "",
    ]
    if content.trade_offs:
        parts += ["## Quality against cost", "", *(f"- {plain(line)}" for line in content.trade_offs), ""]
    verdicts = [pair.sentence for pair in content.comparison.pairs] + content.comparison.untested
    if verdicts:
        parts += [
            "## Are the differences real?",
            "",
            "Paired bootstrap on the same utterances; p is Holm-corrected, intervals are each pair's own.",
            "",
        ]
        parts += [*(f"- {plain(line)}" for line in verdicts), ""]
    if content.curves:
        parts += ["## Training", "", *table(CURVES_HEADER, curve_lines(content.curves)), ""]
    if costs := tuning_costs(content.rows):
        parts += ["## Fine-tuning cost", "", *table(TUNING_HEADER, costs), ""]
    parts += ["## Every figure", "", *table(EVERY_HEADER, every_figure(content.rows)), ""]
    parts += [*(f"- {plain(line)}" for line in flags(content.rows)), ""] if flags(content.rows) else []
    parts += ["## Where the numbers come from", "", *table(PROVENANCE_HEADER, provenance(content.rows)), ""]
    if content.commands:
        parts += ["## Commands that wrote the rows", "", "```sh", *content.commands, "```", ""]
    parts += ["## Published by others", "", "Not measured here: other data, code and machines.", ""]
    for other in published.tables().values():
        said = f"{other.protocol}. {other.note} Source: {other.source}."
        parts += [f"### {plain(other.title)}", "", plain(said), "", *table(other.header, other.lines), ""]
    return "\n".join(parts)


def summary_cells(summary: Summary, bold: bool = True) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the summary table, in Markdown when `bold`."""
    header = ["system", "weights", *(f"{column.label} {column.arrow}" for column in summary.columns)]
    lines = []
    for system in summary.systems:
        line = [system.name, system.weights]
        for column in summary.columns:
            cell = summary.cell(system, column)
            text = f"**{cell.text}**" if cell.best and bold else cell.text
            line.append(" ".join(part for part in (text, cell.mark, cell.interval) if part))
        lines.append(line)
    return header, lines


CURVES_HEADER = ["run", "figure", "steps", "first", "last", "from lowest ▁ to highest █"]
BARS = "▁▂▃▄▅▆▇█"
BARS_SHOWN = 24


def curve_lines(curves: Sequence[Curve]) -> list[list[str]]:
    """One line per curve, drawn in bars."""
    return [
        [
            curve.run + (" (dev)" if curve.dev else ""), curve.title,
            f"{curve.steps[0]:g} to {curve.steps[-1]:g}",
            numbers.significant(curve.values[0]), numbers.significant(curve.values[-1]), bars(curve.values),
        ]
        for curve in curves
    ]  # fmt: skip


def bars(values: Sequence[float]) -> str:
    """Values as at most 24 bars.

    >>> bars([0.0, 1.0, 3.5, 7.0])
    '▁▂▄█'
    """
    shown = [values[round(i * (len(values) - 1) / (BARS_SHOWN - 1))] for i in range(BARS_SHOWN)]
    shown = list(values) if len(values) <= BARS_SHOWN else shown
    low, span = min(shown), max(shown) - min(shown)
    return "".join(BARS[int((value - low) / span * 7.999) if span else 0] for value in shown)


TUNING_HEADER = [
    "system", "evaluation", "score [95 %]", "tuned", "trained parameters", "step", "peak memory", "training",
]  # fmt: skip
_TUNING = {"params_trainable": "parameters", "step_s": "s", "peak_mem_bytes": "bytes", "wall_s": "s"}


def tuning_costs(rows: Sequence[ResultRow]) -> list[list[str]]:
    """What fine-tuning cost, beside what it reached: one line per row that knows it."""
    lines = []
    for row in rows:
        if row.cost.keys() >= _TUNING.keys():
            score = numbers.metric(next(iter(row.metrics.values())))
            costs = [numbers.quantity(row.cost[name], unit) for name, unit in _TUNING.items()]
            lines.append([row.system, row.evaluation, score, row.methods.get("tune", numbers.ABSENT), *costs])
    return lines


EVERY_HEADER = ["system", "evaluation", "data", "tier", "weights", "metric", "value [95 %]", "n"]


def every_figure(rows: Sequence[ResultRow]) -> list[list[str]]:
    """One line per metric of every row."""
    lines = []
    for row in rows:
        data = f"{row.data.corpus} {row.data.split}" + (" (synthetic)" if row.data.synthetic else "")
        for name, metric in row.metrics.items():
            count = numbers.ABSENT if metric.n is None else str(metric.n)
            known = [row.system, row.evaluation, data, row.tier, row.weights]
            lines.append([*known, name, numbers.metric(metric), count])
    return lines


PROVENANCE_HEADER = [
    "system",
    "evaluation",
    "commit",
    "machine",
    "threads",
    "seed",
    "config",
    "data",
    "weights",
    "date",
    "how",
]


def provenance(rows: Sequence[ResultRow]) -> list[list[str]]:
    """One line per row; hashes by their first digits."""
    lines = []
    for row in rows:
        stamp = row.provenance
        hashes = [
            stamp.config_sha256[:10],
            stamp.data_sha256[:10],
            (row.weights_sha256 or numbers.ABSENT)[:10],
        ]
        known = [
            row.system,
            row.evaluation,
            *code_and_machine(row),
            str(stamp.torch_threads),
            str(stamp.seed),
        ]
        how = "; ".join(f"{name.replace('_', ' ')}: {way}" for name, way in row.methods.items())
        lines.append([*known, *hashes, stamp.created_utc[:10], how])
    return lines


def code_and_machine(row: ResultRow) -> tuple[str, str]:
    """The commit by its first digits, and the processor."""
    stamp = row.provenance
    commit = stamp.commit[:10] + (" + changes" if stamp.dirty else "")
    return commit, stamp.cpu if stamp.gpu == "none" else stamp.gpu


def flags(rows: Sequence[ResultRow]) -> list[str]:
    """What single rows say against themselves."""
    return [f"{row.system}, {row.evaluation}: {flag}" for row in rows for flag in row.flags]


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown, its cells as `plain` makes them; from the third column on to the right."""
    rule = ["---" if position < 2 else "---:" for position in range(len(header))]
    return [_line(header), _line(rule, raw=True), *(_line(line) for line in lines)]


def _line(cells: Sequence[str], raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else plain(cell) for cell in cells) + " |"


def plain(text: str) -> str:
    """Text that cannot break out of a table cell or become HTML, code, a link or a picture."""
    escapes = {"\\": "\\\\", "|": "\\|", "<": "&lt;", "`": "\\`", "](": "]\\(", "\n": " "}
    for mark, replacement in escapes.items():
        text = text.replace(mark, replacement)
    return text
