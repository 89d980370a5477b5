"""From a scored hypothesis file to the `asr` result row."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslbench.data.manifests import describe
from sslbench.errors import SslbenchError
from sslbench.finetune.decode import meta_path
from sslbench.finetune.scoring import Score
from sslbench.io import read_json, write_jsonl
from sslbench.provenance import collect
from sslbench.report.schema import Metric, Search
from sslbench.report.store import make_row, row_path, save


@dataclass(frozen=True)
class RowOptions:
    """What a person says about a row; all else comes from the files."""

    system: str
    results: str
    tier: str = "short"
    upstream: str | None = None
    evaluation: str = "asr"


def write_row(
    scored: Score, reference: Path | str, hypotheses: Path | str, errors_file: Path, options: RowOptions
) -> Path:
    """Save the row of a hypothesis file that `sslbench decode` or `sslbench espnet asr` wrote.

    Args:
        scored: the errors.
        reference: what was scored against.
        hypotheses: the file.
        errors_file: the listing.
        options: what a person says about the row.

    Raises:
        SslbenchError: the facts beside the hypotheses are missing or say another upstream, or the reference
            is not the manifest that was transcribed.
    """
    facts_path = meta_path(hypotheses)
    if not facts_path.is_file():
        raise SslbenchError(
            f"{facts_path}: missing, so the row's origin is unknown; transcribe with 'sslbench decode'"
        )
    facts = read_json(facts_path)
    if options.upstream is not None and options.upstream != facts["upstream"]:
        raise SslbenchError(
            f"score: --upstream {options.upstream}, but {hypotheses} was made with {facts['upstream']}"
        )
    _check_reference(reference, hypotheses, facts["data_sha256"])
    folder = row_path(options.results, options.system, options.evaluation).parent
    row = make_row(
        system=options.system,
        upstream=facts["upstream"],
        evaluation=options.evaluation,
        tier=options.tier,
        weights=facts["weights"],
        weights_sha256=facts["weights_sha256"],
        data=facts["data"],
        metrics=_metrics(scored, facts),
        cost=_cost(facts),
        search=_search(facts),
        methods={
            "text_normaliser": scored.normaliser,
            "counts": scored.counting,
            "decoder": facts["decoder"],
            **facts.get("methods", {}),
        },
        flags=facts.get("flags", []),
        artifacts={
            "hypotheses": os.path.relpath(hypotheses, folder),
            "errors": os.path.relpath(errors_file, folder),
            "predictions": os.path.relpath(_write_predictions(scored, hypotheses), folder),
            "experiment": os.path.relpath(facts["experiment"], folder),
        },
        provenance=collect(facts["config_sha256"], facts["data_sha256"], facts["seed"]),
    )
    return save(row, options.results)


def _check_reference(reference: Path | str, hypotheses: Path | str, data_sha256: str) -> None:
    """A row says what data its figures are of: those that were transcribed, and no other reference."""
    try:
        same = describe(reference).sha256 == data_sha256
    except SslbenchError:  # any form of transcripts can be scored, but says nothing of the audio
        same = False
    if not same:
        raise SslbenchError(
            f"score: no row, since {reference} is not the manifest that {hypotheses} was made from; "
            "score against that one, or transcribe this one"
        )


def _write_predictions(scored: Score, hypotheses: Path | str) -> Path:
    """What was compared, utterance by utterance: `sslbench compare` and the report pair systems by it."""
    path = Path(hypotheses)
    path = path.with_name(path.name.removesuffix(".jsonl") + ".scored.jsonl")
    rows = [
        {
            "id": u.id,
            "speaker": u.speaker,
            "ref": " ".join(u.reference),
            "hyp": " ".join(u.hypothesis),
            "errors": u.words.errors,
            "length": u.words.ref,
        }
        for u in scored.utterances
    ]
    write_jsonl(path, rows)
    return path


def _metrics(scored: Score, facts: dict[str, Any]) -> dict[str, Metric]:
    counts = scored.total("words")
    per_word = {"sub": counts.sub, "del": counts.deleted, "ins": counts.ins}
    shares = {
        name: Metric(value=100 * number / counts.ref, unit="%", higher_is_better=False)
        for name, number in per_word.items()
    }
    rates = {name: scored.metric(level) for name, level in scored.rates().items()}
    return {**rates, "rtf": Metric(value=facts["rtf"], unit="x", higher_is_better=False), **shares}


def _cost(facts: dict[str, Any]) -> dict[str, float]:
    train, search = facts["train"], facts["search"] or {}
    cost = {
        "wall_s": search.get("wall_s", train.get("wall_s")),
        "params_trainable": train.get("params_trainable"),
        "train_steps": train.get("steps"),
        "step_s": train.get("step_s"),
        "train_hours": train.get("train_hours"),
        "peak_mem_bytes": train.get("peak_mem_bytes"),
        "decode_wall_s": facts["wall_s"],
        "skipped": facts["skipped"],
        **facts.get("stages", {}),
    }
    return {name: float(value) for name, value in cost.items() if value is not None}


def _search(facts: dict[str, Any]) -> Search | None:
    search = facts["search"]
    if search is None:
        return None
    return Search(**{key: search[key] for key in ("lr_grid", "lr", "selected_on", "scores")})
