"""Result rows of the benchmark's tasks, as if measured on official data."""

from __future__ import annotations

from sslbench import provenance
from sslbench.probe.scores import Board
from sslbench.report.schema import Data, Metric, ResultRow


def superb_row(
    board: Board, task: str, *, tier: str = "full", synthetic: bool = False, corpus: str = "", n: int = 0,
    system: str = "model",
) -> ResultRow:  # fmt: skip
    """A row whose metrics are the benchmark's upper anchors."""
    wanted = board.tasks[task]
    items = n or wanted.official.items or 100
    metrics = {
        name: Metric(value=a.sota, unit="%", higher_is_better=a.sota > a.fbank, n=items)
        for name, a in wanted.metrics.items()
    }
    return ResultRow(
        system=system,
        upstream="model",
        evaluation=wanted.evaluations[0],
        tier=tier,  # type: ignore[arg-type]
        weights="none",
        weights_sha256=None,
        data=Data(
            corpus=corpus or wanted.official.corpora[0],
            split=wanted.official.splits[0],
            synthetic=synthetic,
            hours=1.0,
        ),
        metrics=metrics,
        provenance=provenance.collect("c", "d", 0),
    )
