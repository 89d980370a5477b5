"""Results for other programs: one JSON file with whole rows, one CSV file with a line per metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from sslbench.report.schema import ResultRow

FIELDS = (
    "system", "upstream", "evaluation", "tier", "weights", "corpus", "split", "synthetic",
    "metric", "value", "unit", "low", "high", "n", "higher_is_better",
    "commit", "dirty", "seed", "config_sha256", "data_sha256", "created_utc",
)  # fmt: skip


def as_json(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    """Whole rows, as the store has them."""
    return [row.model_dump(mode="json") for row in rows]


def as_csv(rows: Sequence[ResultRow]) -> str:
    """A line per metric; values as stored, not rounded."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        whole = {**row.data.model_dump(), **row.provenance.model_dump(), **row.model_dump()}
        for name, metric in row.metrics.items():
            line = {**whole, "metric": name, **metric.model_dump()}
            writer.writerow({key: _safe(value) for key, value in line.items()})
    return buffer.getvalue()


def _safe(value: Any) -> Any:
    """Spreadsheets run cells that begin with these; an apostrophe makes them text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
