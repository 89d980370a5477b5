"""One task on one upstream: features, the lr grid, predictions, and the result row."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import nn

from sslbench.errors import SslbenchError
from sslbench.io import sha256_json
from sslbench.nn.upstream import weights_of
from sslbench.probe.encoder import Encoder, libraries
from sslbench.probe.estimate import announce
from sslbench.probe.plan import Plan, audio_digest, identity, make_plan
from sslbench.probe.pooled import make_grid
from sslbench.probe.resume import Unfinished
from sslbench.probe.row import task_row
from sslbench.probe.rundir import RunDir
from sslbench.probe.score import score_run
from sslbench.probe.store import CachedStore, LiveStore, Store, cache_bytes, is_kept
from sslbench.probe.task import Example, ProbeTask, UntrainedTask
from sslbench.probe.train import Fold, GridTrainer, Point
from sslbench.report.schema import ResultRow
from sslbench.report.store import check_replaceable
from sslbench.tiers import Tier
from sslbench.train.logging import peak_mem_bytes


@dataclass
class ProbeSettings:
    """What a probe run is given besides the upstream."""

    data: Path
    """Corpus folder with manifests, or the root of a task's official layout."""
    exp: Path
    """Experiment folder; each task has its own below."""
    results: Path
    """Folder of result rows; a row names its files relative to itself."""
    tier: Tier = "smoke"
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
    """Where upstream and heads run."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the upstream's computation; the row says so."""
    cache_precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of frame features on disk; the row says so. Means are always float32."""
    early_stop: bool = False
    """Stop hopeless learning rates (see `Protocol.early_stop`)."""
    random_weights: bool = False
    """Tier full may run on random weights: a baseline."""


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
    if settings.lrs and not isinstance(task, UntrainedTask):
        task.protocol = replace(task.protocol, lr_grid=settings.lrs)
    if settings.early_stop:
        if settings.tier == "full":
            raise SslbenchError("--early_stop: tier 'full' is the official protocol, which trains every rate")
        task.protocol = replace(task.protocol, early_stop=True)
    check_replaceable(settings.results, named.system, task.name, task.tier)
    run = RunDir(settings.exp / task.name)
    plan = make_plan(task, settings.data, settings.seed)
    upstream = load()
    check_weights(named, upstream, settings)
    encoder = Encoder(upstream, settings.device, settings.precision)
    task.stride = encoder.stride
    grid = _grid(task, encoder)
    known = identity(task, plan, audio_digest(plan.examples), grid)
    known |= {
        "upstream": named.upstream,
        "weights": encoder.fingerprint(),
        "seed": settings.seed,
        "precision": [settings.precision, settings.cache_precision],
    }
    # what the code makes of the weights; not in the row's hash, which other machines may compare
    claimed = known | {
        "outputs": run.sample(encoder.sample, encoder.tolerance()),
        "libraries": libraries(),
        "features": "kept" if _kept(task, plan.examples, encoder, settings) else "live",
    }
    run.claim(claimed, {"task": task.name, "tier": task.tier, "lr_grid": grid, "folds": list(plan.folds)})
    _train_missing(run, task, grid, plan, encoder, settings, sha256_json(claimed))
    scored = score_run(run, task, grid)
    if not settings.keep_cache:
        run.drop_cache()
    return task_row(task, run, scored, upstream, named, settings, known, plan)


def check_weights(named: Named, upstream: nn.Module, settings: ProbeSettings) -> None:
    """Say whose weights these are. Raises `SslbenchError` for random ones that nobody asked for at tier full:
    s3prl's upstreams are built with such where their checkpoint cannot be fetched."""
    weights, sha256 = weights_of(upstream)
    print(f"weights: {weights}{f' ({sha256[:12]})' if sha256 else ''}", file=sys.stderr, flush=True)
    if weights == "random" and settings.tier == "full" and not settings.random_weights:
        raise SslbenchError(
            f"{named.upstream}: has random weights; give --ckpt (or let its own be fetched), or say "
            "--random_weights for a baseline at tier full"
        )


def _grid(task: ProbeTask, encoder: Encoder) -> list[float]:
    values = task.choices(encoder.layers) if isinstance(task, UntrainedTask) else task.protocol.lr_grid
    return sorted(set(values), reverse=True)


def _train_missing(
    run: RunDir, task: ProbeTask, grid: list[float], plan: Plan, encoder: Encoder, settings: ProbeSettings,
    key: str,
) -> None:  # fmt: skip
    missing = {fold: [v for v in grid if v not in run.finished(fold)] for fold in plan.folds}
    left = sum(map(len, missing.values()))
    if not left:
        print(f"{task.name}: all {len(grid) * len(plan.folds)} units are finished in {run.folder}")
        return
    announce(task, plan, encoder, settings, missing, len(grid) * len(plan.folds))
    started = time.monotonic()
    store = open_store(run, task, plan.examples, encoder, settings, key)
    features_s = time.monotonic() - started
    good = store.readable()
    for name, values in missing.items():
        if not values:
            continue
        began = time.monotonic()
        parts = {part: [n for n in numbers if good[n]] for part, numbers in plan.folds[name].items()}
        unfinished = run.unfinished(name, key)
        together = _together(task, grid, values, unfinished.values())
        points = _solve(task, Fold(name, plan.examples, parts), store, together, settings, unfinished)
        cost = {
            "wall_s": (time.monotonic() - began + unfinished.earlier_s) / len(together) + features_s / left,
            "features_s": features_s / left,
            "peak_mem_bytes": float(peak_mem_bytes()),
            "params_trainable": float(sum(v.numel() for v in points[0].best_state.values())),
        }
        for point in points:
            if point.value in values:
                run.finish(point, name, cost)
        unfinished.remove()


def _together(task: ProbeTask, grid: list[float], missing: list[float], begun: list[float]) -> list[float]:
    """The grid points to train for the missing ones: those of an interrupted training that has them all, and
    the whole grid where points depend on each other."""
    if not isinstance(task, UntrainedTask) and task.protocol.early_stop:
        return grid
    return begun if set(missing) <= set(begun) else missing


def _kept(task: ProbeTask, examples: list[Example], encoder: Encoder, settings: ProbeSettings) -> bool:
    wanted = cache_bytes(examples, encoder, task.pooled, settings.cache_precision)
    return is_kept(task.pooled, wanted, settings.cache_gb)


def open_store(
    run: RunDir, task: ProbeTask, examples: list[Example], encoder: Encoder, settings: ProbeSettings, key: str
) -> Store:
    """A cache when it fits into the limit, else features computed anew for every batch."""
    if not _kept(task, examples, encoder, settings):
        print(f"features: above the limit of {settings.cache_gb:g} GB; they are computed for each batch")
        return LiveStore(examples, encoder, run.folder / "skipped.jsonl", task.waveform)
    return CachedStore(
        run.cache, examples, encoder, task.pooled, key, precision=settings.cache_precision,
        waveform=task.waveform, progress=f"{task.name}: features",
    )  # fmt: skip


def _solve(
    task: ProbeTask, fold: Fold, store: Store, values: list[float], settings: ProbeSettings,
    unfinished: Unfinished,
) -> list[Point]:  # fmt: skip
    points = [Point(value) for value in values]
    if isinstance(task, UntrainedTask):
        fold.check(task.name, ("dev", "test"))
        for point in points:
            _answer(task, fold, store, point)
        return points
    grid = make_grid(task, store, fold.examples, values, settings.seed, settings.device)
    GridTrainer(task, fold, grid, points, unfinished).train(settings.seed)
    return points


def _answer(task: UntrainedTask, fold: Fold, store: Store, point: Point) -> None:
    for part in ("dev", "test"):
        rows = task.answer(part, fold.of(part), store, fold.parts[part], point.value)
        setattr(point, "best_dev" if part == "dev" else "test", rows)
    point.best_score = task.selection(point.best_dev)
    point.layer_shares = task.layer_shares(store.layers, point.value)
    point.curve = [{"step": 0, "dev": point.best_score}]


def upstream_loader(name: str, ckpt: Path | None) -> Callable[[], nn.Module]:
    """Loads a frozen upstream when called."""

    def load() -> nn.Module:
        from sslbench.upstreams import load_upstream

        if ckpt is not None and not ckpt.exists():
            raise SslbenchError(f"--ckpt {ckpt}: no such checkpoint")
        # tier full refuses random weights, `check_weights` says them at the others
        return load_upstream(name, ckpt=ckpt, stand_in=True)

    return load
