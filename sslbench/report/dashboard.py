"""What experiments are doing, one line per system, for a terminal beside long runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslbench.errors import SslbenchError
from sslbench.io import read_json, read_jsonl, read_yaml
from sslbench.probe import rundir
from sslbench.progress import clock
from sslbench.report.curves import LOG
from sslbench.report.schema import ResultRow

SILENT_S = 600.0
"""A run that has written nothing for so long is taken for stopped."""


@dataclass(frozen=True)
class Run:
    """One unfinished experiment."""

    system: str
    name: str
    done: int
    total: int
    unit: str
    left_s: float | None
    """By its last logged speed, validation not included; None where no speed is logged."""
    alive: bool

    @property
    def text(self) -> str:
        """For example `pretrain 240/800 steps, left 4:12`."""
        left = f", left {clock(self.left_s)}" if self.alive and self.left_s is not None else ""
        return f"{self.name} {self.done}/{self.total} {self.unit}{left}"


def dashboard(
    rows: Iterable[ResultRow], folders: Sequence[Path | str], now: float | None = None
) -> list[str]:
    """One line per system: evaluations with a row, runs that are going on, runs that stopped.

    Args:
        rows: what is finished.
        folders: runs, or folders of SYSTEM/RUN as the recipes lay them out.
        now: seconds since 1970; None for the present.
    """
    finished: dict[str, list[str]] = {}
    for row in rows:
        finished.setdefault(row.system, []).append(row.evaluation)
    moment = time.time() if now is None else now
    runs = [run for folder in folders for run in _unfinished(Path(folder), moment)]
    names = sorted({*finished, *(run.system for run in runs)})
    width = max(map(len, names), default=0)
    lines = []
    for name in names:
        own = [run for run in runs if run.system == name]
        parts = {
            "done": ", ".join(sorted(finished.get(name, []))),
            "running": "; ".join(run.text for run in own if run.alive),
            "stopped": "; ".join(run.text for run in own if not run.alive),
        }
        told = [f"{state} {text}" for state, text in parts.items() if text]
        lines.append(f"{name:{width}}  {' | '.join(told)}")
    return lines


def _unfinished(root: Path, now: float) -> Iterator[Run]:
    for path in _below(root, LOG) + _below(root, rundir.RUN):
        run = path.parent
        inside = run.relative_to(root).parts
        system, name = (
            (inside[0], inside[-1]) if len(inside) > 1 else (root.resolve().name, run.resolve().name)
        )
        try:
            counted = _grid(run) if path.name == rundir.RUN else _steps(run)
            newest = max((file.stat().st_mtime for file in run.rglob("*") if file.is_file()), default=0.0)
        except (OSError, SslbenchError, KeyError, TypeError, ValueError):
            continue  # half written, or removed meanwhile; the next look will find it whole
        if counted is None:
            continue
        done, total, unit, left_s = counted
        yield Run(system, name, done, total, unit, left_s, now - newest < SILENT_S)


def _below(root: Path, name: str) -> list[Path]:
    try:
        return sorted(root.rglob(name))
    except OSError:  # a folder was removed meanwhile
        return []


def _steps(run: Path) -> tuple[int, int, str, float | None] | None:
    """A training: updates made of those wanted; None when it is complete."""
    if (run / "DONE").is_file():
        return None
    config: dict[str, Any] = read_yaml(run / "config.yaml")
    logged = [row for row in read_jsonl(run / LOG) if "step" in row]
    done = int(logged[-1]["step"]) if logged else 0
    total = int(config["max_steps"] if "max_steps" in config else config["steps"])  # pretraining, fine-tuning
    speeds = [float(row["step_s"]) for row in logged if "step_s" in row]
    return done, total, "steps", (total - done) * speeds[-1] if speeds else None


def _grid(run: Path) -> tuple[int, int, str, float | None] | None:
    """A probe: trained points of its grid; None when all are."""
    facts = read_json(run / rundir.RUN)["facts"]
    total = len(facts["lr_grid"]) * len(facts.get("folds", [""]))
    done = len(list(run.rglob(rundir.DONE)))
    return None if done >= total else (done, total, "grid points", None)
