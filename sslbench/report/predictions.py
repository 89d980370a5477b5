"""Per-utterance errors from predictions on disk, for paired tests and for the worst utterances.

Scores are pooled ratios: edits over reference tokens where lower is better, and correct answers over
utterances where higher is better. Predictions are used only when they give the row's own headline again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslbench.errors import SslbenchError
from sslbench.io import read_jsonl
from sslbench.report.schema import Metric, ResultRow
from sslbench.report.store import row_path

TOLERANCE = 0.01
"""Points; rows hold unrounded scores."""


@dataclass(frozen=True)
class Item:
    """One scored utterance."""

    id: str
    reference: str
    hypothesis: str
    errors: float
    """Edits; for an accuracy, 1 when right, so that errors over lengths is the score."""
    length: float
    speaker: str | None


def read_items(row: ResultRow, results: Path) -> dict[str, Item] | str:
    """The scored utterances of a row, by id, or in words why there are none.

    A predictions file (artifact `predictions`, JSON lines) has `id`, `ref` and `hyp` per row; `text` may
    stand for `hyp`, and `speaker`, or the counts `errors` and `length`, are used when they are there.
    """
    path = _path(row, results)
    if path is None:
        return "no predictions on disk"
    metric = next(iter(row.metrics.values()))
    try:
        items = [_item(found, metric) for found in read_jsonl(path)]
    except (SslbenchError, KeyError, TypeError, ValueError, OSError) as error:
        return f"predictions cannot be read ({type(error).__name__}: {error})"
    total = sum(item.length for item in items)
    if total <= 0:
        return "predictions hold no references"
    again = 100 * sum(item.errors for item in items) / total
    if metric.unit != "%" or abs(again - metric.value) > TOLERANCE:
        return f"predictions give {again:.2f}, not the row's {metric.value:.2f} {metric.unit}"
    found = {item.id: item for item in items}
    if len(found) < len(items):
        return f"{len(items) - len(found)} predictions have the name of another"
    return found


def worst(items: dict[str, Item], count: int = 5) -> list[Item]:
    """The utterances with the most edits, most first."""
    wrong = [item for item in items.values() if item.errors > 0]
    return sorted(wrong, key=lambda item: (-item.errors, -item.errors / max(item.length, 1), item.id))[:count]


def aligned(item: Item) -> list[tuple[str, str]]:
    """(said, heard) word by word, one of them empty where a word was left out or put in."""
    import kaldialign

    nothing = ""  # no word is empty, so it cannot be mistaken for one
    return list(kaldialign.align(item.reference.split(), item.hypothesis.split(), nothing))


def whole_list(row: ResultRow, results: Path) -> str:
    """Where all errors of a row are listed: a path from the folder that holds the results folder."""
    named = row.artifacts.get("errors")
    path = row_path(results, row.system, row.evaluation).parent / named if named else _path(row, results)
    return os.path.relpath(path, results.parent) if path else "not on disk"


def _path(row: ResultRow, results: Path) -> Path | None:
    named = [value for name, value in row.artifacts.items() if name.startswith("predictions")]
    folder = row_path(results, row.system, row.evaluation).parent
    found = [folder / name for name in named if name.endswith(".jsonl") and (folder / name).is_file()]
    return found[0] if found else None


def _item(found: dict[str, Any], metric: Metric) -> Item:
    reference, hypothesis = str(found.get("ref", "")), str(found["hyp"] if "hyp" in found else found["text"])
    speaker = found.get("speaker")
    if "errors" in found and "length" in found:
        errors, length = float(found["errors"]), float(found["length"])
    elif "ref" not in found:
        raise KeyError("ref")
    elif metric.higher_is_better:
        errors, length = float(reference == hypothesis), 1.0
    else:
        errors, length = _edits(reference.split(), hypothesis.split()), float(len(reference.split()))
    return Item(
        str(found["id"]), reference, hypothesis, errors, length, None if speaker is None else str(speaker)
    )


def _edits(reference: list[str], hypothesis: list[str]) -> float:
    import kaldialign

    return float(kaldialign.edit_distance(reference, hypothesis)["total"])
