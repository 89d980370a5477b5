"""Scores from prediction files: the learning rate is chosen on dev, the test score is of that one."""

from __future__ import annotations

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
    """On test, of the chosen learning rate."""
    search: Search
    layer_shares: list[float]
    """What each layer contributes to the chosen probe."""


def score_run(run: RunDir, task: ProbeTask, lr_grid: list[float] | None = None) -> Scored:
    """Choose on dev and score on test, from files alone.

    Args:
        run: a task's folder.
        task: gives the metrics.
        lr_grid: the learning rates to choose from; None takes every finished one.

    Raises:
        SslbenchError: no learning rate is finished, or one of the grid is missing.
    """
    finished = run.finished()
    grid = sorted(lr_grid if lr_grid is not None else finished, reverse=True)
    missing = [lr for lr in grid if lr not in finished]
    if missing or not grid:
        what = ", ".join(f"{lr:g}" for lr in missing) or "any"
        raise SslbenchError(f"{run.folder}: learning rate {what} is not finished; run the same command again")
    scores = {lr: task.metrics(run.predictions(lr, "dev"))[task.headline].value for lr in grid}
    chosen = grid[0]
    for lr in grid[1:]:
        if better(scores[lr], scores[chosen], task.higher_is_better):
            chosen = lr
    search = Search(
        lr_grid=grid, lr=chosen, selected_on="dev", scores={f"{lr:g}": value for lr, value in scores.items()}
    )
    metrics = task.metrics(run.predictions(chosen, "test"))
    return Scored(task.name, metrics, search, read_json(run.lr_folder(chosen) / "layer_weights.json"))


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
