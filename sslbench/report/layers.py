"""Layer weights of probes and recognizers, where they were written down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sslbench.errors import SslbenchError
from sslbench.io import read_json
from sslbench.report.schema import ResultRow
from sslbench.report.store import row_path


def read_layer_weights(rows: Sequence[ResultRow], results: Path) -> dict[str, dict[str, list[float]]]:
    """evaluation -> system -> weights, from each row's artifact `layer_weights`, or its experiment's `DONE`.

    The JSON file holds the list itself, or an object with it under `layer_weights` or `weights`.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        name = row.artifacts.get("layer_weights")
        if name is None and "experiment" in row.artifacts:
            name = row.artifacts["experiment"] + "/DONE"
        if name is None:
            continue
        weights = _read(row_path(results, row.system, row.evaluation).parent / name)
        if weights:
            found.setdefault(row.evaluation, {})[row.system] = weights
    return found


def _read(path: Path) -> list[float]:
    try:
        value: Any = read_json(path)
    except (SslbenchError, OSError):
        return []
    for key in ("layer_weights", "weights"):
        if isinstance(value, dict) and key in value:
            value = value[key]
    if not isinstance(value, list) or not all(
        isinstance(v, (int, float)) and math.isfinite(v) for v in value
    ):
        return []
    return [float(v) for v in value]
