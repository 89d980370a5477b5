"""What a reader must know before the numbers: it heads every report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sslbench.report.schema import ResultRow
from sslbench.report.view import NOT_QUALITY


def cautions(rows: Sequence[ResultRow]) -> list[str]:
    """Everything that limits what the rows may be used for, gravest first; empty when nothing does."""
    quality = [row for row in rows if row.evaluation not in NOT_QUALITY]
    found = [
        _about(
            quality,
            lambda r: r.data.synthetic,
            "Synthetic speech: scores of {} say nothing about real speech.",
        ),
        _about(
            quality,
            lambda r: r.weights == "random",
            "Random weights: the scores of {} are those of an untrained encoder.",
        ),
        _about(
            rows,
            lambda r: r.tier == "smoke",
            "Smoke tier: the rows of {} only prove that the code runs.",
        ),
        _about(
            quality,
            lambda r: r.tier == "short",
            "Short tier: the scores of {} do not follow the full protocol of published ones.",
        ),
        *_mismatches(rows, quality),
        _about(
            rows,
            lambda r: r.provenance.dirty,
            "Uncommitted code: the rows of {} cannot be traced to a commit.",
        ),
        _about(
            rows,
            lambda r: r.cost.get("unlisted_operators", 0) > 0,
            "Uncounted operators: the MACs of {} are a lower bound.",
        ),
        _about(rows, _noisy, "Noisy timings: speeds of {} spread more than 3 % or had to share the machine."),
    ]
    return [line for line in found if line]


def _about(rows: Iterable[ResultRow], holds: Callable[[ResultRow], bool], sentence: str) -> str:
    rows = list(rows)
    hit = [row for row in rows if holds(row)]
    if not hit:
        return ""
    if len(hit) == len(rows):
        return sentence.format("all systems")
    names = sorted({row.system for row in hit})
    evaluations = sorted({row.evaluation for row in hit})
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return sentence.format(f"{shown} ({', '.join(evaluations)})")


def _noisy(row: ResultRow) -> bool:
    spreads = [value for name, value in row.cost.items() if name.endswith("_spread")]
    return max(spreads, default=0.0) > 0.03 or row.cost.get("other_load_cores", 0.0) > 0.2


def _mismatches(rows: Sequence[ResultRow], quality: Sequence[ResultRow]) -> list[str]:
    found = []
    for evaluation in sorted({row.evaluation for row in quality}):
        same = [row for row in quality if row.evaluation == evaluation]
        if len({(r.data.corpus, r.data.split, r.provenance.data_sha256) for r in same}) > 1:
            found.append(
                f"Mismatched data: {evaluation} was measured on different data; do not compare its rows."
            )
        if len({r.tier for r in same}) > 1:
            found.append(
                f"Mismatched tiers: {evaluation} holds rows of different tiers; do not compare them."
            )
        if len({next(iter(r.metrics)) for r in same}) > 1:
            found.append(f"Mismatched metrics: {evaluation} rows have different headline metrics.")
        for name in sorted({name for row in same for name in row.methods}):
            ways = sorted({row.methods.get(name, "not stated") for row in same})
            if len(ways) > 1:
                said = name.replace("_", " ")
                found.append(f"Mismatched methods: {evaluation} rows differ in {said}: {' / '.join(ways)}.")
    for system in sorted({row.system for row in quality}):
        hashes = {row.weights_sha256 for row in quality if row.system == system}
        if len(hashes) > 1:
            found.append(f"Mismatched weights: the scores of {system} come from different checkpoints.")
    profiled = {
        (r.provenance.cpu, r.provenance.gpu, r.provenance.torch_threads)
        for r in rows
        if r.evaluation == "profile"
    }
    if len(profiled) > 1:
        found.append("Mismatched machines: speeds were measured on different hardware or thread counts.")
    for evaluation, what in {"pretrain": "pretraining times", "plan": "predicted times"}.items():
        same = [row for row in rows if row.evaluation == evaluation]
        ways = sorted({row.methods.get("machine", "a machine that was not noted") for row in same})
        if len(ways) > 1:
            found.append(f"Mismatched machines: {what} are of different ones: {' / '.join(ways)}.")
    for name, what in {"memory": "peak memory", "longest_batch": "longest batches"}.items():
        ways = sorted({r.methods[name] for r in rows if r.evaluation == "profile" and name in r.methods})
        if len(ways) > 1:
            found.append(f"Mismatched costs: {what} were measured in different ways: {' / '.join(ways)}.")
    return found
