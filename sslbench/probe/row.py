"""The result row of a probe task, from its run on disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from torch import nn

from sslbench import provenance
from sslbench.io import sha256_json, write_json
from sslbench.nn.upstream import weights_of
from sslbench.probe.files import test_split
from sslbench.probe.plan import Plan
from sslbench.probe.rundir import RunDir, write_predictions
from sslbench.probe.score import Scored
from sslbench.probe.task import ProbeTask
from sslbench.report.schema import Data, ResultRow
from sslbench.report.store import make_row, row_path

if TYPE_CHECKING:
    from sslbench.probe.runner import Named, ProbeSettings

BITS = {"fp32": 32.0, "fp16": 16.0, "bf16": 16.0}


def task_row(
    task: ProbeTask, run: RunDir, scored: Scored, upstream: nn.Module, named: Named, settings: ProbeSettings,
    identity: dict[str, Any], plan: Plan,
) -> ResultRow:  # fmt: skip
    """Put quality, cost and provenance together."""
    test = plan.test()
    custom = test[0].cut.custom or {}
    weights, weights_sha256 = weights_of(upstream)
    return make_row(
        system=named.system,
        upstream=named.upstream,
        evaluation=task.name,
        tier=task.tier,
        weights=weights,
        weights_sha256=weights_sha256,
        data=Data(
            corpus=str(custom.get("corpus", settings.data.resolve().name)),
            split=test_split(settings.data, task.settings),
            synthetic=bool(custom.get("synthetic", False)),
            hours=sum(e.cut.duration for e in test) / 3600,
        ),
        metrics=scored.metrics,
        cost=_cost(run, scored, plan, settings, task.pooled),
        search=scored.search,
        artifacts=_artifacts(run, scored, plan, row_path(settings.results, named.system, task.name).parent),
        provenance=provenance.collect(sha256_json(identity), identity["data"], settings.seed),
    )


def _cost(run: RunDir, scored: Scored, plan: Plan, settings: ProbeSettings, pooled: bool) -> dict[str, float]:
    costs = [
        done["cost"]
        for fold in plan.folds
        for value, done in run.finished(fold).items()
        if value in scored.search.lr_grid
    ]
    return {
        "wall_s": sum(c["wall_s"] for c in costs),
        "features_s": sum(c["features_s"] for c in costs),
        "peak_mem_bytes": max(c["peak_mem_bytes"] for c in costs),
        "params_trainable": costs[0]["params_trainable"],
        "upstream_bits": BITS[settings.precision],
        "features_bits": 32.0 if pooled else BITS[settings.cache_precision],
    }


def _artifacts(run: RunDir, scored: Scored, plan: Plan, row_folder: Any) -> dict[str, str]:
    """Predictions, layer weights and curve of the chosen grid point; with folds the first two are merged."""
    chosen = scored.search.lr
    if len(plan.folds) == 1:
        folder = run.lr_folder(chosen, next(iter(plan.folds)))
        files = {"predictions": "test.jsonl", "layer_weights": "layer_weights.json", "curve": "curve.jsonl"}
    else:
        folder = run.folder / "all_folds"
        rows = [row for fold in plan.folds for row in run.predictions(chosen, "test", fold)]
        write_predictions(folder / "test.jsonl", rows)
        write_json(folder / "layer_weights.json", scored.layer_shares)
        files = {"predictions": "test.jsonl", "layer_weights": "layer_weights.json"}
    return {name: os.path.relpath(folder / file, row_folder) for name, file in files.items()}
