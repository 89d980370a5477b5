"""A measured cost as JSON for other programs, and as a result row."""

from __future__ import annotations

import dataclasses
from typing import Any

from sslbench import provenance
from sslbench.io import sha256_json
from sslbench.profile import memory
from sslbench.profile.capacity import CLIP_S, Capacity
from sslbench.profile.growth import Growth
from sslbench.profile.macs import BUCKETS, TOTAL_AUDIO_S
from sslbench.profile.measure import Cost, Options
from sslbench.profile.workload import BATCH, SINGLE
from sslbench.report.schema import Data, Metric, ResultRow
from sslbench.report.store import make_row


def to_json(cost: Cost, options: Options) -> dict[str, Any]:
    """The machine-readable form of `profile --json`: absent figures are null, units are in the keys."""
    timings = cost.timings
    return {
        "upstream": cost.subject.upstream,
        "system": cost.subject.system,
        "weights": cost.weights,
        "params_total": cost.params_total,
        "params_trainable": cost.params_trainable,
        "params_active": cost.macs.params_active,
        "macs_g": cost.macs.total_g,
        "macs_buckets_g": cost.macs.buckets_g,
        "macs_kinds_g": cost.macs.kinds_g,
        "macs_counted_on": cost.macs.counted_on,
        "unlisted_operators": cost.macs.unlisted,
        "rtf": timings["single"].median_s / SINGLE.audio_s if "single" in timings else None,
        "audio_s_per_s": BATCH.audio_s / timings["batch"].median_s if "batch" in timings else None,
        "train_audio_s_per_s": BATCH.audio_s / timings["train"].median_s if "train" in timings else None,
        "peak_mem_inference_bytes": cost.memory_bytes.get("inference_bytes"),
        "peak_mem_train_bytes": cost.memory_bytes.get("train_bytes"),
        "baseline_mem_bytes": cost.memory_bytes.get("baseline_bytes"),
        "energy_inference_j_per_audio_s": cost.energy_j_per_audio_s.get("inference"),
        "energy_train_j_per_audio_s": cost.energy_j_per_audio_s.get("train"),
        "energy_method": cost.energy_method,
        "memory_method": memory.method(options.device),
        "longest_batch_audio_s": cost.capacity.audio_s if cost.capacity else None,
        "longest_batch_method": longest_batch_method(cost.capacity, options.device)
        if cost.capacity
        else None,
        "device": options.device,
        "growth": growth_json(cost.growth) if cost.growth else None,
        "workloads": {"single": SINGLE.name, "batch": BATCH.name, "train": BATCH.name},
        "spreads": {name: timed.spread for name, timed in timings.items()},
        "repeats": {name: len(timed.seconds) for name, timed in timings.items()},
        "other_load_cores": max((timed.other_load_cores for timed in timings.values()), default=0.0),
        "torch_threads": options.threads,
        "flags": cost.flags,
    }


def growth_json(growth: Growth) -> dict[str, Any]:
    """Cost by length; the fitted curve is `per_s * T + per_s2 * T^2`."""
    curve = growth.macs_curve
    return {
        "macs_g": {str(length): value for length, value in growth.macs_g.items()},
        "wall_s": {str(length): value for length, value in growth.seconds.items()},
        "macs_g_per_s": curve.per_s,
        "macs_g_per_s2": curve.per_s2,
        "fit_worst_error": curve.worst_error,
        "crossover_s": curve.crossover_s,
    }


def longest_batch_method(found: Capacity, device: str) -> str:
    """What "fits" means: rows are comparable when this is the same."""
    update = f"forward, backward and AdamW in fp32 on clips of {CLIP_S:g} s"
    return f"{update} within {found.limit_bytes / 2**30:.1f} GiB, {memory.method(device)}"


# key of `to_json` -> unit, higher is better; the first is the row's headline
METRICS: dict[str, tuple[str, bool]] = {
    "macs_g": ("G", False),
    "params_total": ("parameters", False),
    "params_trainable": ("parameters", False),
    "params_active": ("parameters", False),
    "rtf": ("s/s", False),
    "audio_s_per_s": ("s/s", True),
    "train_audio_s_per_s": ("s/s", True),
    "peak_mem_inference_bytes": ("bytes", False),
    "peak_mem_train_bytes": ("bytes", False),
    "longest_batch_audio_s": ("s", True),
    "energy_inference_j_per_audio_s": ("J/s", False),
    "energy_train_j_per_audio_s": ("J/s", False),
}


def to_row(cost: Cost, options: Options, tier: str, seed: int) -> ResultRow:
    """The `profile` row of a system. Raises `SslbenchError` when a field is refused."""
    found = to_json(cost, options)
    metrics = {
        name: Metric(value=found[name], unit=unit, higher_is_better=higher)
        for name, (unit, higher) in METRICS.items()
        if found[name] is not None
    }
    for bucket, macs_g in cost.macs.buckets_g.items():
        metrics[f"macs_{bucket}_g"] = Metric(
            value=macs_g, unit="G", higher_is_better=False, n=len(BUCKETS[bucket])
        )
    costs = {
        "wall_s": cost.wall_s,
        "other_load_cores": found["other_load_cores"],
        "unlisted_operators": float(len(cost.macs.unlisted)),
        **{f"{name}_spread": timed.spread for name, timed in cost.timings.items()},
        **{f"{name}_repeats": float(len(timed.seconds)) for name, timed in cost.timings.items()},
        **{f"macs_{kind}_g": macs_g for kind, macs_g in cost.macs.kinds_g.items()},
    }
    if cost.growth:
        costs |= {f"macs_at_{length}s_g": value for length, value in cost.growth.macs_g.items()}
        costs |= {f"wall_at_{length}s_s": value for length, value in cost.growth.seconds.items()}
        fit = cost.growth.macs_curve
        costs |= {"macs_g_per_s": fit.per_s, "macs_g_per_s2": fit.per_s2, "macs_fit_error": fit.worst_error}
    if cost.capacity:
        costs |= {"longest_batch_limit_bytes": float(cost.capacity.limit_bytes)}
        costs |= {"longest_batch_trials": float(len(cost.capacity.tried))}
    methods = {"energy": cost.energy_method}
    methods |= {"memory": memory.method(options.device)} if cost.memory_bytes else {}
    methods |= {"longest_batch": found["longest_batch_method"]} if cost.capacity else {}
    settings = {"subject": dataclasses.asdict(cost.subject), "options": dataclasses.asdict(options)}
    return make_row(
        system=cost.subject.system,
        upstream=cost.subject.upstream,
        evaluation="profile",
        tier=tier,
        weights=cost.weights,
        weights_sha256=cost.weights_sha256,
        # noise of the official lengths: cost does not depend on what is said
        data=Data(corpus="superb-32-lengths", split="noise", synthetic=True, hours=TOTAL_AUDIO_S / 3600),
        metrics=metrics,
        cost=costs,
        methods=methods,
        flags=cost.flags,
        provenance=provenance.collect(sha256_json(settings), sha256_json(BUCKETS), seed),
    )
