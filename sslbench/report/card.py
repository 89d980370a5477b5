"""What a model's own pages need: a Hugging Face model card, and the fields of SUPERB's submission form.

Card metadata: the `model-index` that huggingface_hub reads. Form fields: the leaderboard's own form and table
(superbbenchmark/website-react, backend/models/file.py).
"""

from __future__ import annotations

from typing import Any

import yaml

from sslbench.report import numbers
from sslbench.report.cautions import cautions
from sslbench.report.markdown import code_and_machine, plain, table
from sslbench.report.schema import ResultRow
from sslbench.report.view import NOT_QUALITY, System

HUB_TASKS = {"asr": "automatic-speech-recognition"}
"""Evaluations that the hub has a task for; the others are named as they are here."""


def model_card(system: System) -> str:
    """README.md of a model: metadata for the hub, then figures, cautions and provenance for people."""
    rows = list(system.rows.values())
    head = {
        "library_name": "sslbench",
        "tags": ["speech", "self-supervised", "sslbench"],
        "model-index": [{"name": system.name, "results": _results(rows)}],
    }
    parts = ["---", yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(), "---", ""]
    about = f"Upstream {plain(system.upstream)}, weights: {plain(system.weights)}."
    parts += [f"# {system.name}", "", about, ""]
    warned = cautions(rows)
    parts += ["**Read this first.**", "", *(f"- {plain(line)}" for line in warned), ""] if warned else []
    header = ["evaluation", "data", "metric", "value [95 %]"]
    lines = [
        [row.evaluation, f"{row.data.corpus} {row.data.split}", name, numbers.metric(metric)]
        for row in rows
        for name, metric in row.metrics.items()
    ]
    parts += [*table(header, lines), "", *(f"{plain(line)}\n" for line in _measured(rows))]
    return "\n".join(parts)


def _measured(rows: list[ResultRow]) -> list[str]:
    """A sentence per code and machine that rows come from, oldest first."""
    found: dict[str, list[ResultRow]] = {}
    for row in sorted(rows, key=lambda row: row.provenance.created_utc):
        commit, machine = code_and_machine(row)
        found.setdefault(f"with sslbench at {commit} on {machine}", []).append(row)
    sentences = []
    for how, group in found.items():
        days = sorted({row.provenance.created_utc[:10] for row in group})
        when = " to ".join(dict.fromkeys((days[0], days[-1])))
        what = f" ({', '.join(row.evaluation for row in group)})" if len(found) > 1 else ""
        sentences.append(f"Measured {how}, {when}{what}.")
    return sentences


def _results(rows: list[ResultRow]) -> list[dict[str, Any]]:
    """Quality rows in the hub's form; values as stored."""
    return [
        {
            "task": {"type": HUB_TASKS.get(row.evaluation, row.evaluation)},
            "dataset": {"type": row.data.corpus, "name": row.data.corpus, "split": row.data.split},
            "metrics": [
                {"type": name, "name": f"{name} ({metric.unit})", "value": metric.value}
                for name, metric in row.metrics.items()
            ],
        }
        for row in rows
        if row.evaluation not in NOT_QUALITY
    ]


def superb_form(system: System) -> dict[str, Any]:
    """The form's fields; what no row knows is empty, for the submitter to fill in."""
    row = system.rows.get("profile")
    figures = {name: metric.value for name, metric in row.metrics.items()} if row else {}
    params = "" if "params_total" not in figures else f"{figures['params_total']:.0f}"
    used = f", {figures['params_active']:.0f} of them used" if "params_active" in figures else ""

    def macs(name: str) -> int | None:
        return round(figures[name] * 1e9) if name in figures else None

    return {
        "submitName": system.name,
        "modelURL": "",
        "modelDesc": f"{system.upstream}, weights: {system.weights}",
        "stride": "",
        "inputFormat": "waveform, 16 kHz",
        "corpus": "",
        "paramDesc": f"{params} parameters{used}" if params else "",
        "paramShared": params,
        "fineTunedParam": "0",
        "taskSpecParam": "",
        "task": "CONSTRAINED",
        "macs": macs("macs_g"),
        **{
            f"macs{bucket.title()}": macs(f"macs_{bucket}_g")
            for bucket in ("short", "medium", "long", "longer")
        },
    }
