"""Result rows as a table of systems: one line per system, one column per evaluation or cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sslbench.report import numbers
from sslbench.report.schema import Metric, ResultRow

NOT_QUALITY = ("profile", "pretrain", "plan")
"""Evaluations of this engine that measure cost or training, not the quality of features."""

OVERALL = "superb"
"""The evaluation that holds a score over all tasks; it comes before theirs."""

TIED, UNTESTED = "≈", "?"
MARKS = (
    f"{TIED} marks systems that no test tells from it, {UNTESTED} those that were not tested against it; "
    "unmarked ones were shown to be worse."
)

MAX_TOGETHER, SCORES_PER_TABLE = 7, 5
"""Columns of one table: more do not fit a printed page."""

# (evaluation, metric) -> title, unit as displayed
COSTS = {
    ("profile", "params_total"): ("Parameters", "M"),
    ("profile", "macs_g"): ("MACs", "G"),
    ("profile", "rtf"): ("RTF", "s/s"),
    ("profile", "train_audio_s_per_s"): ("Training speed", "audio s/s"),
    ("profile", "peak_mem_train_bytes"): ("Training memory", "MiB"),
    ("profile", "longest_batch_audio_s"): ("Longest batch", "s"),
    ("pretrain", "device_hours"): ("Pretraining time", "device-hours"),
    ("plan", "device_hours"): ("Predicted pretraining time", "device-hours"),
    ("plan", "kwh"): ("Predicted pretraining energy", "kWh"),
}


@dataclass(frozen=True)
class Column:
    """One figure of every system."""

    evaluation: str
    metric: str
    title: str
    unit: str
    higher_is_better: bool
    quality: bool

    @property
    def arrow(self) -> str:
        """Which direction is better."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def label(self) -> str:
        """Title with unit, for axes and headers."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True)
class Cell:
    """One figure of one system."""

    text: str
    interval: str
    best: bool
    mark: str = ""
    """`TIED` or `UNTESTED`, against the best of the column."""


@dataclass
class System:
    """The rows of one system, by evaluation."""

    name: str
    rows: dict[str, ResultRow] = field(default_factory=dict)

    @property
    def weights(self) -> str:
        """Where the weights came from, by the quality rows when there are any."""
        quality = [row.weights for name, row in self.rows.items() if name not in NOT_QUALITY]
        return ", ".join(sorted(set(quality or [row.weights for row in self.rows.values()])))

    @property
    def upstream(self) -> str:
        """Registry or s3prl name."""
        return ", ".join(sorted({row.upstream for row in self.rows.values()}))

    def metric(self, column: Column) -> Metric | None:
        """The figure of a column, when it was measured."""
        row = self.rows.get(column.evaluation)
        return row.metrics.get(column.metric) if row else None


@dataclass
class Summary:
    """What the tables and plots show."""

    columns: list[Column]
    systems: list[System]
    marks: dict[tuple[str, str], str] = field(default_factory=dict)
    """(evaluation, system) -> `TIED` or `UNTESTED`, where either holds against the best of the score."""

    @property
    def quality(self) -> list[Column]:
        """The columns of scores."""
        return [column for column in self.columns if column.quality]

    @property
    def costs(self) -> list[Column]:
        """The other columns."""
        return [column for column in self.columns if not column.quality]

    @property
    def tables(self) -> list[list[Column]]:
        """The columns, in as many tables as keep them readable on paper: scores, then costs."""
        if len(self.columns) <= MAX_TOGETHER:
            return [self.columns]
        return _parts(self.quality, SCORES_PER_TABLE) + _parts(self.costs, MAX_TOGETHER)

    def measured(self, column: Column) -> list[tuple[System, Metric]]:
        """The systems that have a figure in this column, best first."""
        found = [(s, m) for s in self.systems if (m := s.metric(column)) is not None]
        return sorted(found, key=lambda pair: pair[1].value, reverse=column.higher_is_better)

    def cell(self, system: System, column: Column) -> Cell:
        """A figure as text; the best of at least two is marked."""
        found = system.metric(column)
        if found is None:
            return Cell(numbers.ABSENT, "", False)
        ranked = self.measured(column)
        interval = ""
        if found.low is not None and found.high is not None:
            interval = f"[{numbers.bare(found.low, found.unit)}, {numbers.bare(found.high, found.unit)}]"
        best = len(ranked) > 1 and found.value == ranked[0][1].value
        mark = self.marks.get((column.evaluation, system.name), "") if column.quality and not best else ""
        return Cell(numbers.bare(found.value, found.unit), interval, best, mark)


def _parts(columns: list[Column], most: int) -> list[list[Column]]:
    """Pieces of about equal size, none larger than `most`."""
    count = -(-len(columns) // most)
    return [columns[len(columns) * i // count : len(columns) * (i + 1) // count] for i in range(count)]


def summarise(rows: Iterable[ResultRow]) -> Summary:
    """Arrange rows by system; evaluations that nobody has are no columns."""
    systems: dict[str, System] = {}
    for row in rows:
        systems.setdefault(row.system, System(row.system)).rows[row.evaluation] = row
    chosen = list(systems.values())
    columns = _quality_columns(chosen) + _cost_columns(chosen)
    return Summary(columns, _ordered(chosen, columns))


def _quality_columns(systems: Sequence[System]) -> list[Column]:
    found: dict[str, Column] = {}
    for system in systems:
        for name, row in system.rows.items():
            if name in NOT_QUALITY or name in found:
                continue
            metric, value = next(iter(row.metrics.items()))
            words = f"{name.upper().replace('_', ' ')} {metric_title(metric)}"
            title = metric if metric.startswith(f"{name}_") else words
            found[name] = Column(name, metric, title, value.unit, value.higher_is_better, quality=True)
    return [found[name] for name in sorted(found, key=lambda name: (name != OVERALL, name))]


def metric_title(name: str) -> str:
    """`wer` → `WER`, `accuracy` → `accuracy`: short names are abbreviations."""
    if name == "acc":
        return "accuracy"
    return name.upper() if len(name) <= 4 else name.replace("_", " ")


def _cost_columns(systems: Sequence[System]) -> list[Column]:
    columns = []
    for (evaluation, metric), (title, unit) in COSTS.items():
        rows = [system.rows[evaluation] for system in systems if evaluation in system.rows]
        known = [row.metrics[metric] for row in rows if metric in row.metrics]
        if known:
            columns.append(Column(evaluation, metric, title, unit, known[0].higher_is_better, quality=False))
    return columns


def _ordered(systems: list[System], columns: Sequence[Column]) -> list[System]:
    """By the first score, best first; systems without it come last, by name."""
    if not columns:
        return sorted(systems, key=lambda system: system.name)
    first = columns[0]
    sign = -1.0 if first.higher_is_better else 1.0

    def key(system: System) -> tuple[bool, float, str]:
        found = system.metric(first)
        return (found is None, sign * found.value if found else 0.0, system.name)

    return sorted(systems, key=key)
