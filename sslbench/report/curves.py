"""Training curves from the `log.jsonl` of pretraining and fine-tuning runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.io import read_jsonl

LOG = "log.jsonl"
MAX_POINTS = 500

# key in the log -> (group, title, axis label, dev)
_UNIT_CURVES = {
    "loss": ("Pretraining loss", "loss per masked frame (nats)", False),
    "dev_loss": ("Pretraining loss", "loss per masked frame (nats)", True),
    "acc": ("Pretraining accuracy", "share of masked units right", False),
    "dev_acc": ("Pretraining accuracy", "share of masked units right", True),
}
_TEXT_CURVES = {
    "loss": ("Fine-tuning loss", "training loss", False),
    "dev_loss": ("Fine-tuning loss", "training loss", True),
    "dev_wer": ("Fine-tuning dev WER", "WER on dev (%)", True),
    "dev_cer": ("Fine-tuning dev CER", "CER on dev (%)", True),
}


@dataclass
class Curve:
    """One quantity of one run."""

    run: str
    title: str
    label: str
    dev: bool
    steps: list[float]
    values: list[float]


def read_runs(folders: Sequence[Path | str]) -> tuple[list[Curve], list[str]]:
    """The curves of some experiment folders, and one line per folder that gave none.

    A folder without `log.jsonl` stands for all runs below it. Rows may lack keys, hold events, or end
    torn; anything that is no finite number is left out.
    """
    curves: list[Curve] = []
    problems: list[str] = []
    runs = [run for folder in folders for run in _runs(Path(folder))]
    for name, folder in zip(_names(runs), runs, strict=True):
        if not (folder / LOG).is_file():
            problems.append(f"{folder}: no training curve (no {LOG} in it or below it)")
            continue
        try:
            rows = list(read_jsonl(folder / LOG))
        except (OSError, SslbenchError, CorruptFileError) as error:
            problems.append(f"{folder}: no training curve ({error})")
            continue
        found = _curves(name, rows)
        curves += found
        if not found:
            problems.append(f"{folder}: log.jsonl holds no loss, accuracy or error rate yet")
    return curves, problems


def _runs(folder: Path) -> list[Path]:
    if (folder / LOG).is_file():
        return [folder]
    return sorted(path.parent for path in folder.rglob(LOG)) or [folder]


def _names(folders: Sequence[Path]) -> list[str]:
    """Last parts of the paths, as many as tell them apart."""
    parts = [Path(folder).resolve().parts[1:] or ("run",) for folder in folders]
    for depth in range(1, max((len(p) for p in parts), default=0) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _curves(run: str, rows: Sequence[Any]) -> list[Curve]:
    rows = [row for row in rows if isinstance(row, dict)]
    recognizer = any(key in row for row in rows for key in ("dev_wer", "dev_cer"))
    wanted = _TEXT_CURVES if recognizer else _UNIT_CURVES
    curves = []
    for key, (title, label, dev) in wanted.items():
        points = [
            (row["step"], row[key]) for row in rows if _finite(row.get("step")) and _finite(row.get(key))
        ]
        if points:
            kept = points[:: math.ceil(len(points) / MAX_POINTS)]
            kept += [points[-1]] if kept[-1] != points[-1] else []
            curves.append(
                Curve(run, title, label, dev, *(list(column) for column in zip(*kept, strict=True)))
            )
    return curves


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
