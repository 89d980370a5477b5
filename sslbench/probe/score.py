"""Scores from prediction files: the grid point is chosen on dev, the test score is of that one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sslbench.errors import SslbenchError
from sslbench.io import read_json
from sslbench.probe.rundir import RUN, RunDir
from sslbench.probe.task import ProbeTask, load_task
from sslbench.probe.train import better
from sslbench.report.schema import Metric, Search


@dataclass
class Scored:
    """A task's result."""

    task: str
    metrics: dict[str, Metric]
    """On test, of the chosen grid point; with folds the mean over folds."""
    search: Search
    layer_shares: list[float]
    """What each layer contributes to the chosen probe; with folds the mean."""


def score_run(run: RunDir, task: ProbeTask, grid: list[float] | None = None) -> Scored:
    """Choose on dev and score on test, from files alone.

    Folds share one grid point: the best by the mean of their dev scores.

    Args:
        run: a task's folder.
        task: gives the metrics.
        grid: the points to choose from; None takes those finished in every fold.

    Raises:
        SslbenchError: nothing is finished, or a point of the grid is missing.
    """
    folds: list[str] = run.run()["facts"].get("folds", [""])
    finished = set.intersection(*(set(run.finished(fold)) for fold in folds))
    points = sorted(grid if grid is not None else finished, reverse=True)
    missing = [point for point in points if point not in finished]
    if missing or not points:
        what = ", ".join(f"{point:g}" for point in missing) or "any"
        raise SslbenchError(
            f"{run.folder}: {_called(task)} {what} is not finished; run the same command again"
        )
    scores = {
        point: _mean([task.selection(run.predictions(point, "dev", fold)) for fold in folds])
        for point in points
    }
    chosen = _best(scores, task.higher_is_better)
    search = Search(
        lr_grid=points,
        lr=chosen,
        selected_on="dev" if task.searched == "lr" else f"dev, over {task.searched}s",
        scores={f"{point:g}": value for point, value in scores.items()},
    )
    metrics = over_folds(
        [
            task.final_metrics(run.predictions(chosen, "dev", fold), run.predictions(chosen, "test", fold))
            for fold in folds
        ]
    )
    if task.test_selected:
        _, metrics[f"{task.headline}_test_selected"] = chosen_on_test(run, task, points, folds)
    shares = [read_json(run.lr_folder(chosen, fold) / "layer_weights.json") for fold in folds]
    return Scored(task.name, metrics, search, [_mean(list(layer)) for layer in zip(*shares, strict=True)])


def _called(task: ProbeTask) -> str:
    return "learning rate" if task.searched == "lr" else task.searched


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _best(scores: dict[float, float], higher_is_better: bool) -> float:
    """The best point; of equal ones the first."""
    chosen = next(iter(scores))
    for point, score in scores.items():
        if better(score, scores[chosen], higher_is_better):
            chosen = point
    return chosen


def over_folds(folds: list[dict[str, Metric]]) -> dict[str, Metric]:
    """The mean over folds. Folds hold different test clips, so their errors are taken as independent."""
    if len(folds) == 1:
        return folds[0]
    merged: dict[str, Metric] = {}
    for name, first in folds[0].items():
        each = [fold[name] for fold in folds]
        value = _mean([metric.value for metric in each])
        update: dict[str, float | int | None] = {"value": value, "low": None, "high": None}
        pairs = [
            (m.value - m.low, m.high - m.value) for m in each if m.low is not None and m.high is not None
        ]
        if len(pairs) == len(each):
            update["low"] = value - math.hypot(*(below for below, _ in pairs)) / len(each)
            update["high"] = value + math.hypot(*(above for _, above in pairs)) / len(each)
        counts = [metric.n for metric in each if metric.n is not None]
        update["n"] = sum(counts) if len(counts) == len(each) else None
        merged[name] = first.model_copy(update=update)
    return merged


def chosen_on_test(
    run: RunDir, task: ProbeTask, points: list[float], folds: list[str]
) -> tuple[float, Metric]:
    """The grid point with the best headline on test, each at its best step there, and that headline: the
    choice of protocols that select on test."""
    found = {
        point: over_folds([task.metrics(run.predictions(point, "test_selected", fold)) for fold in folds])
        for point in points
    }
    scores = {point: metrics[task.headline].value for point, metrics in found.items()}
    chosen = _best(scores, task.higher_is_better)
    return chosen, found[chosen][task.headline]


def score_experiment(exp: Path) -> list[Scored]:
    """Every task under an experiment folder. Raises `SslbenchError` when there is none."""
    folders = sorted(path.parent for path in Path(exp).glob(f"*/{RUN}"))
    if not folders:
        raise SslbenchError(f"{exp}: holds no task; make one with 'sslbench superb run … --out {exp}'")
    scored = []
    for folder in folders:
        run = RunDir(folder)
        facts = run.run()["facts"]
        task = load_task(facts["task"], facts["tier"])
        scored.append(score_run(run, task, facts["lr_grid"]))
    return scored
