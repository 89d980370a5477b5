"""The result row of an overall SUPERB score, from the rows of its tasks."""

from __future__ import annotations

from collections.abc import Mapping

from sslbench import provenance
from sslbench.errors import SslbenchError
from sslbench.io import sha256_json
from sslbench.probe.scores import Board, superb_s, superb_s_interval
from sslbench.report.schema import Data, Metric, ResultRow
from sslbench.report.store import make_row


def overall_row(board: Board, form: str, rows: Mapping[str, ResultRow]) -> ResultRow:
    """Put `superb_s` into a row, so that reports show it beside the tasks.

    Args:
        board: the definition.
        form: "paper-10" or "public-10".
        rows: task to row of one system, complete and official.

    Raises:
        SslbenchError: a task is missing, or the rows are of different weights.
    """
    own = [rows[task] for task in board.form(form) if task in rows]
    if len({row.weights_sha256 for row in own}) > 1:
        raise SslbenchError(
            f"{own[0].system}: its tasks were run on different weights; run them again on one"
        )
    metrics = {task: dict(row.metrics) for task, row in rows.items()}
    values = {task: {name: m.value for name, m in found.items()} for task, found in metrics.items()}
    value = superb_s(board, form, values)
    low, high = superb_s_interval(board, form, metrics)
    first = own[0]
    return make_row(
        system=first.system,
        upstream=first.upstream,
        evaluation="superb",
        tier=first.tier,
        weights=first.weights,
        weights_sha256=first.weights_sha256,
        data=Data(corpus="superb", split=form, synthetic=False, hours=sum(row.data.hours for row in own)),
        metrics={"superb_s": Metric(value=value, unit="", higher_is_better=True, low=low, high=high)},
        methods={"form": form},
        provenance=provenance.collect(
            sha256_json([row.provenance.config_sha256 for row in own]),
            sha256_json([row.provenance.data_sha256 for row in own]),
            first.provenance.seed,
        ),
    )
