"""Results as markdown."""

from __future__ import annotations

import statistics
from typing import Any

MB = 1e6


def markdown(result: dict[str, Any], reference: str) -> str:
    """One table per mode and batch, the machine before them, remarks after them."""
    settings = result["settings"]
    rates = ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in result["matmul_flops_per_s"].items())
    machine = result["machine"]["gpu" if settings["device"] == "cuda" else "cpu"]
    lines = [
        f"{machine}, {settings['threads']} threads, torch {result['machine']['packages']['torch']}; "
        f"matrix product: {rates}. "
        f"Medians of {settings['rounds']} interleaved rounds, {result['wall_s'] / 60:.0f} minutes in all.",
        "",
    ]
    for mode in settings["modes"]:
        for batch in settings["batches"]:
            lines += _table(result, reference, mode, batch)
    for batch in settings["batches"]:
        lines += _families(result, batch)
    failures = {
        f"- {name}, {key}: {cell['error']}"
        for name, cells in result["cells"].items()
        for key, cell in cells.items()
        if "error" in cell
    }
    lines += sorted(failures)
    lines += [f"- {name}: {reason}" for name, reason in result["notes"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _table(result: dict[str, Any], reference: str, mode: str, batch: str) -> list[str]:
    dtypes = result["settings"]["dtypes"]
    on_gpu = result["settings"]["device"] == "cuda"
    title = {"train": "Training step", "infer": "Inference"}[mode]
    clips, seconds = batch.split("x")
    audio_s = int(clips) * float(seconds)
    head = ["model", "params"]
    for dtype in dtypes:
        head += [f"{dtype} s", "audio s/s", "× ref", "share"]
        if mode == "train":
            head += ["peak MB", "over weights", "× ref peak"]
        if on_gpu:
            head += ["kernels"]
    base = result["cells"].get(reference, {}).get(f"{mode} {batch} {dtypes[0]}", {})
    lines = [f"### {title}, {clips} × {seconds} s", "", "| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * len(head))
    for name, cells in result["cells"].items():
        params = result["params"].get(name)
        row = [name, f"{params / 1e6:.2f}M" if params else "–"]
        for dtype in dtypes:
            cell = cells[f"{mode} {batch} {dtype}"]
            row += _speed(
                cell, base, audio_s, result["matmul_flops_per_s"][dtypes[0] if not on_gpu else dtype]
            )
            if mode == "train":
                row += _memory(cell, base)
            if on_gpu:
                row += [str(cell.get("kernels", "–"))]
        lines.append("| " + " | ".join(row) + " |")
    return [*lines, ""]


def _families(result: dict[str, Any], batch: str) -> list[str]:
    """Per model and family of operators: share of the profiled step, and rate over the matrix product's."""
    dtype = result["settings"]["dtypes"][0]
    rate = result["matmul_flops_per_s"][dtype]
    found = {
        name: cells[key]["families"]
        for name, cells in result["cells"].items()
        if "seconds" in cells.get(key := f"train {batch} {dtype}", {}).get("families", {})
    }
    if not found:
        return []
    names = list(next(iter(found.values()))["seconds"])
    lines = [f"### Where a {dtype} training step goes, {batch.replace('x', ' × ')} s", ""]
    lines += ["| model | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for name, families in found.items():
        total = sum(families["seconds"].values())
        row = [name]
        for family, seconds in families["seconds"].items():
            flops = families["flops"][family]
            at = f" (at {flops / seconds / rate:.0%})" if flops and seconds else ""
            row.append(f"{seconds / total:.0%}{at}")
        lines.append("| " + " | ".join(row) + " |")
    return [*lines, ""]


def _speed(cell: dict[str, Any], base: dict[str, Any], audio_s: float, rate: float) -> list[str]:
    """Median seconds, audio per second, ratio over the reference, share of the matrix-product rate."""
    if not cell["seconds"]:
        return ["fails" if "error" in cell else "–"] + ["–"] * 3
    median = statistics.median(cell["seconds"])
    low, high = min(cell["seconds"]), max(cell["seconds"])
    times = [f"{median:.3g} ({low:.3g}–{high:.3g})", f"{audio_s / median:.1f}"]
    over = statistics.median(base["seconds"]) / median if base.get("seconds") else None
    share = cell["flops"] / median / rate if cell.get("flops") else None
    return [*times, f"{over:.2f}" if over else "–", f"{share:.0%}" if share else "–"]


def _memory(cell: dict[str, Any], base: dict[str, Any]) -> list[str]:
    if "peak_bytes" not in cell:
        return ["–"] * 3
    peak, own = cell["peak_bytes"], cell["peak_bytes"] - cell["baseline_bytes"]
    ratio = f"{peak / base['peak_bytes']:.2f}" if base.get("peak_bytes") else "–"
    if base.get("peak_bytes"):
        ratio += f" / {own / (base['peak_bytes'] - base['baseline_bytes']):.2f}"
    return [f"{peak / MB:.0f}", f"{own / MB:.0f}", ratio]
