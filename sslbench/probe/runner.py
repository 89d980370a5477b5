"""One task on one upstream: features, the lr grid, predictions, and the result row."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from torch import nn

from sslbench import __version__, provenance
from sslbench.config import to_dict
from sslbench.errors import SslbenchError
from sslbench.io import sha256_json
from sslbench.probe.encoder import Encoder
from sslbench.probe.rundir import RunDir
from sslbench.probe.score import Scored, score_run
from sslbench.probe.store import open_store
from sslbench.probe.task import PARTS, Example, ProbeTask, limited
from sslbench.probe.train import GridTrainer, candidates
from sslbench.report.schema import Data, ResultRow
from sslbench.report.store import make_row, row_path


@dataclass
class ProbeSettings:
    """What a probe run is given besides the upstream."""

    data: Path
    """Corpus folder with manifests."""
    exp: Path
    """Experiment folder; each task has its own below."""
    results: Path
    """Folder of result rows; a row names its files relative to itself."""
    tier: Literal["smoke", "short", "full"] = "smoke"
    """Which of the task's protocols."""
    seed: int = 0
    """Of initial weights, batch order and reduced data."""
    lrs: list[float] = field(default_factory=list)
    """Learning rates instead of the protocol's grid."""
    cache_gb: float = 8.0
    """Features above this are computed for each batch instead of kept on disk."""
    keep_cache: bool = False
    """Keep the features of finished tasks."""
    device: str = "cpu"
    """Where the upstream runs."""


@dataclass(frozen=True)
class Named:
    """The upstream's entries in the row."""

    upstream: str
    """Registry or s3prl name."""
    system: str
    """What the report calls it."""


def run_task(
    task: ProbeTask, load: Callable[[], nn.Module], named: Named, settings: ProbeSettings
) -> ResultRow:
    """Probe one task; what an earlier, interrupted run finished is not done again.

    Args:
        task: of the wanted tier.
        load: builds the frozen upstream; called once.
        named: for the row.
        settings: where and how.

    Raises:
        SslbenchError: unusable data, or the folder holds another run.
    """
    if settings.lrs:
        task.protocol = replace(task.protocol, lr_grid=settings.lrs)
    grid = sorted(set(task.protocol.lr_grid), reverse=True)
    run = RunDir(settings.exp / task.name)
    examples, parts = _examples(task, settings)
    upstream = load()
    encoder = Encoder(upstream, settings.device)
    identity = _identity(task, examples, parts, encoder, named, settings)
    run.claim(identity, {"task": task.name, "tier": task.tier, "lr_grid": grid})
    _train_missing(run, task, grid, examples, parts, encoder, settings, sha256_json(identity))
    scored = score_run(run, task, grid)
    if not settings.keep_cache:
        run.drop_cache()
    return _row(task, run, scored, upstream, named, settings, identity, [examples[n] for n in parts["test"]])


def _examples(task: ProbeTask, settings: ProbeSettings) -> tuple[list[Example], dict[str, list[int]]]:
    """All examples in one list, and the numbers of each part in it."""
    prepared = task.prepare(settings.data)
    examples: list[Example] = []
    parts: dict[str, list[int]] = {}
    for part in PARTS:
        kept = limited(prepared[part], task.protocol.hours(part), settings.seed)
        if part == "train":
            kept = [_shortened(example, task.protocol.max_train_clip_s, settings.seed) for example in kept]
        parts[part] = list(range(len(examples), len(examples) + len(kept)))
        examples += kept
    return examples, parts


def _shortened(example: Example, longest_s: float | None, seed: int) -> Example:
    """A training clip cut to the protocol's length, at a place that depends on seed and id."""
    if longest_s is None or example.cut.duration <= longest_s:
        return example
    share = int(sha256_json([seed, example.id])[:8], 16) / 0xFFFFFFFF
    offset = round(share * (example.cut.duration - longest_s), 4)
    return replace(example, cut=example.cut.truncate(offset=offset, duration=longest_s, preserve_id=True))


def _identity(
    task: ProbeTask, examples: list[Example], parts: dict[str, list[int]],
    encoder: Encoder, named: Named, settings: ProbeSettings,
) -> dict[str, Any]:  # fmt: skip
    protocol = to_dict(task.protocol)
    protocol.pop("lr_grid")
    data = [
        [part, [[e.id, e.cut.start, e.cut.duration, e.reference] for e in (examples[n] for n in parts[part])]]
        for part in PARTS
    ]
    return {
        "upstream": named.upstream,
        "weights": encoder.fingerprint(),
        "tier": task.tier,
        "protocol": protocol,
        "labels": sha256_json(task.facts()),
        "data": sha256_json(data),
        "seed": settings.seed,
        "version": __version__,
    }


def _train_missing(
    run: RunDir, task: ProbeTask, grid: list[float], examples: list[Example], parts: dict[str, list[int]],
    encoder: Encoder, settings: ProbeSettings, key: str,
) -> None:  # fmt: skip
    missing = [lr for lr in grid if lr not in run.finished()]
    if not missing:
        print(f"{task.name}: all {len(grid)} learning rates are finished in {run.folder}")
        return
    started = time.monotonic()
    store = open_store(run.cache, examples, encoder, task.pooled, key, int(settings.cache_gb * 1e9))
    features_s = time.monotonic() - started
    good = store.readable()
    usable = {part: [n for n in numbers if good[n]] for part, numbers in parts.items()}
    trainer = GridTrainer(task, store, examples, usable)
    tried = candidates(task, missing, store.layers, store.dim, settings.seed)
    trainer.train(tried, settings.seed)
    for candidate in tried:
        candidate.probe.load_state_dict(candidate.best_state)
    tests = trainer.predict([candidate.probe for candidate in tried], "test")
    wall_s = time.monotonic() - started
    cost = {"wall_s": wall_s / len(tried), "features_s": features_s / len(tried)}
    cost["peak_mem_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    cost["params_trainable"] = float(sum(p.numel() for p in tried[0].probe.parameters()))
    for candidate, rows in zip(tried, tests, strict=True):
        run.finish(candidate, rows, cost)


def _row(
    task: ProbeTask, run: RunDir, scored: Scored, upstream: nn.Module, named: Named, settings: ProbeSettings,
    identity: dict[str, Any], test: list[Example],
) -> ResultRow:  # fmt: skip
    costs = [done["cost"] for lr, done in run.finished().items() if lr in scored.search.lr_grid]
    custom = test[0].cut.custom or {}
    chosen = run.lr_folder(scored.search.lr)
    row_folder = row_path(settings.results, named.system, task.name).parent
    files = {"predictions": "test.jsonl", "layer_weights": "layer_weights.json", "curve": "curve.jsonl"}
    return make_row(
        system=named.system,
        upstream=named.upstream,
        evaluation=task.name,
        tier=task.tier,
        weights=str(getattr(upstream, "weights", "random")),
        weights_sha256=cast(str | None, getattr(upstream, "weights_sha256", None)),
        data=Data(
            corpus=str(custom.get("corpus", settings.data.resolve().name)),
            split=str(task.settings.get("test_name", "test")),
            synthetic=bool(custom.get("synthetic", False)),
            hours=sum(e.cut.duration for e in test) / 3600,
        ),
        metrics=scored.metrics,
        cost={
            "wall_s": sum(c["wall_s"] for c in costs),
            "features_s": sum(c["features_s"] for c in costs),
            "peak_mem_bytes": max(c["peak_mem_bytes"] for c in costs),
            "params_trainable": costs[0]["params_trainable"],
        },
        search=scored.search,
        artifacts={name: os.path.relpath(chosen / file, row_folder) for name, file in files.items()},
        provenance=provenance.collect(sha256_json(identity), identity["data"], settings.seed),
    )


def upstream_loader(name: str, ckpt: Path | None) -> Callable[[], nn.Module]:
    """Loads a frozen upstream when called."""

    def load() -> nn.Module:
        from sslbench.upstreams import load_upstream

        if ckpt is not None and not ckpt.exists():
            raise SslbenchError(f"--ckpt {ckpt}: no such checkpoint")
        return load_upstream(name, ckpt=ckpt)

    return load
