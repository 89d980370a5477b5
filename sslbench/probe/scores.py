"""The benchmark's overall score, ranks with ties, and whether a set of rows may carry its name.

`superb_s` is the mean over tasks of 1000 · (s − fbank) / (sota − fbank), where a task with several metrics
averages theirs; `superb_r` is the mean number of rivals beaten per task (Feng et al. 2022, arXiv 2210.08634,
and the leaderboard's own code, see `downstream/superb.yaml`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sslbench import config
from sslbench.errors import SslbenchError
from sslbench.io import read_yaml
from sslbench.report.schema import Metric, ResultRow

Values = Mapping[str, Mapping[str, float]]
Z95 = 1.959964


@dataclass
class Anchors:
    """The two systems that fix a metric's scale."""

    fbank: float
    """Scores 0."""
    sota: float
    """Scores 1000."""


@dataclass
class Official:
    """What a row must have been measured on to count."""

    corpora: list[str] = field(default_factory=list)
    """Accepted corpus names."""
    splits: list[str] = field(default_factory=list)
    """Accepted test splits."""
    items: int | None = None
    """Clips of the whole test set; None where only the corpus and split are checked."""


@dataclass
class Archive:
    """Where and how a submission holds a task's predictions; a line is `id answer`."""

    folder: str = ""
    """Below `predict/`; `{fold}` stands for 1 to `folds`."""
    file: str = ""
    """Name in it; `.csv` has commas; tasks with `write_archive` have their own format."""
    folds: int = 1
    """How many folders."""
    rows: str = "test"
    """Prediction rows: "test", or "test_selected" where the protocol selects there."""
    ids: list[str] = field(default_factory=list)
    """Pattern and replacement that turn our ids into the official ones."""


@dataclass
class BoardTask:
    """One task of the leaderboard."""

    metrics: dict[str, Anchors]
    """Its metrics, in the units of our rows."""
    evaluations: list[str] = field(default_factory=list)
    """Row names that measure it; empty when no task of ours does."""
    official: Official = field(default_factory=Official)
    """Its official data."""
    archive: Archive = field(default_factory=Archive)
    """Where its predictions lie in a submission."""


@dataclass
class Board:
    """The leaderboard's definition."""

    forms: dict[str, list[str]]
    """Overall scores: name to tasks."""
    tasks: dict[str, BoardTask]
    """All its tasks."""

    def form(self, name: str) -> list[str]:
        """The tasks of an overall score. Raises `SslbenchError` when there is none of that name."""
        if name not in self.forms:
            raise SslbenchError(f"no overall score {name!r}; known: {', '.join(self.forms)}")
        return self.forms[name]

    def task_of(self, evaluation: str) -> str | None:
        """The leaderboard's task that a row's evaluation measures, if any."""
        return next((name for name, task in self.tasks.items() if evaluation in task.evaluations), None)


def load_board() -> Board:
    """The definition that ships with the tasks, `superb.yaml` beside them."""
    package = importlib.import_module("sslbench.downstream")
    path = Path(next(iter(package.__path__))) / "superb.yaml"
    return config.build(Board, read_yaml(path), str(path))


def task_points(task: BoardTask, values: Mapping[str, float]) -> float:
    """1000 · (s − fbank) / (sota − fbank), averaged over the task's metrics."""
    points = [1000 * (values[name] - a.fbank) / (a.sota - a.fbank) for name, a in task.metrics.items()]
    return sum(points) / len(points)


def missing_values(board: Board, form: str, values: Values) -> list[str]:
    """`task` or `task metric` for everything that an overall score needs and `values` lacks."""
    lacking = []
    for name in board.form(form):
        wanted = list(board.tasks[name].metrics)
        absent = [metric for metric in wanted if metric not in values.get(name, {})]
        if absent:
            lacking.append(name if len(absent) == len(wanted) else f"{name} {' '.join(absent)}")
    return lacking


def superb_s(board: Board, form: str, values: Values) -> float:
    """The overall score of one system.

    Args:
        board: the definition.
        form: "paper-10" or "public-10".
        values: task to metric to value, in the leaderboard's units (percent; MTWV × 100).

    Raises:
        SslbenchError: a task or metric is missing, naming all of them.
    """
    lacking = missing_values(board, form, values)
    if lacking:
        raise SslbenchError(f"superb_s ({form}): missing {', '.join(lacking)}; there is no score of a part")
    tasks = board.form(form)
    return sum(task_points(board.tasks[name], values[name]) for name in tasks) / len(tasks)


def superb_s_interval(
    board: Board, form: str, metrics: Mapping[str, Mapping[str, Metric]]
) -> tuple[float, float]:
    """The 95 % interval of `superb_s` from the tasks' own intervals, taken as independent.

    The score is linear in the metrics, so half-widths add in squares; a metric without an interval adds 0.
    """
    variance = 0.0
    tasks = board.form(form)
    for name in tasks:
        anchors = board.tasks[name].metrics
        for metric, anchor in anchors.items():
            found = metrics[name][metric]
            if found.low is not None and found.high is not None:
                half = (found.high - found.low) / 2
                variance += (1000 * half / (anchor.sota - anchor.fbank) / len(anchors) / len(tasks)) ** 2
    values = {name: {key: m.value for key, m in metrics[name].items()} for name in tasks}
    value = superb_s(board, form, values)
    return value - variance**0.5, value + variance**0.5


def superb_r(board: Board, form: str, systems: Mapping[str, Values]) -> dict[str, float]:
    """Rivals beaten per task, averaged over a task's metrics and over tasks, for every system.

    Raises:
        SslbenchError: a system lacks a task.
    """
    for system, values in systems.items():
        lacking = missing_values(board, form, values)
        if lacking:
            raise SslbenchError(f"superb_r ({form}): {system} lacks {', '.join(lacking)}")
    tasks = board.form(form)
    beaten = dict.fromkeys(systems, 0.0)
    for name in tasks:
        anchors = board.tasks[name].metrics
        for metric, anchor in anchors.items():
            sign = 1 if anchor.sota > anchor.fbank else -1
            for system, values in systems.items():
                own = values[name][metric]
                rivals = sum(sign * (own - other[name][metric]) > 0 for other in systems.values())
                beaten[system] += rivals / len(anchors) / len(tasks)
    return beaten


def tie_groups(metrics: Mapping[str, Metric]) -> list[list[str]]:
    """Systems from best to worst; those that the data cannot tell from their group's best share a rank.

    The best system left heads a group, and the following ones whose 95 % interval reaches the head's belong
    to it. Without intervals only equal values tie. Overlap is stricter than a paired test of the same clips
    (`sslbench compare`), so groups are rather too large than too small.
    """
    order = sorted(metrics, key=lambda name: (_signed(metrics[name])[0], name), reverse=True)
    groups: list[list[str]] = []
    for name in order:
        low_of_head = _signed(metrics[groups[-1][0]])[1] if groups else None
        if low_of_head is not None and _signed(metrics[name])[2] >= low_of_head:
            groups[-1].append(name)
        else:
            groups.append([name])
    return [sorted(group) if len(group) > 1 else group for group in groups]


def _signed(metric: Metric) -> tuple[float, float, float]:
    """(value, low, high) such that more is better."""
    low = metric.value if metric.low is None else metric.low
    high = metric.value if metric.high is None else metric.high
    return (metric.value, low, high) if metric.higher_is_better else (-metric.value, -high, -low)


def rows_by_task(board: Board, rows: Iterable[ResultRow]) -> dict[str, ResultRow]:
    """The row of each of the leaderboard's tasks. Raises `SslbenchError` when two rows are of one task."""
    found: dict[str, ResultRow] = {}
    for row in rows:
        task = board.task_of(row.evaluation)
        if task is None:
            continue
        if task in found:
            raise SslbenchError(f"{row.system}: two rows measure {task} ({found[task].evaluation}); keep one")
        found[task] = row
    return found


def why_not_official(board: Board, form: str, rows: Mapping[str, ResultRow]) -> list[str]:
    """Every reason in these rows of one system why they are no score of the benchmark."""
    reasons = [f"{name} is missing" for name in board.form(form) if name not in rows]
    for name in board.form(form):
        if name in rows:
            reasons += [f"{name} {reason}" for reason in _row_problems(board.tasks[name], rows[name])]
    return reasons


def _row_problems(task: BoardTask, row: ResultRow) -> Sequence[str]:
    official = task.official
    n = row.metrics[next(iter(row.metrics))].n
    low = [name for name in ("upstream_bits", "features_bits") if row.cost.get(name, 32) < 32]
    checks = (
        (not low, f"was computed with half precision ({', '.join(low)})"),
        (row.tier == "full", f"is of tier {row.tier}, not full"),
        (row.weights != "random", "has random weights"),
        (not row.data.synthetic, "was measured on synthetic speech"),
        (
            row.data.corpus in official.corpora,
            f"was measured on {row.data.corpus}, not {'/'.join(official.corpora)}",
        ),
        (row.data.split in official.splits, f"on {row.data.split}, not {'/'.join(official.splits)}"),
        (
            official.items is None or n == official.items,
            f"covers {n} of the {official.items} clips of its test set",
        ),
        (all(metric in row.metrics for metric in task.metrics), f"lacks one of {', '.join(task.metrics)}"),
    )
    return [problem for fine, problem in checks if not fine]
