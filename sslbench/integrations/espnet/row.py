"""The result row of an ESPnet run: its hypotheses in our form, scored as any others are."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from sslbench import registry
from sslbench.data.manifests import describe, open_manifest, split_name
from sslbench.errors import SslbenchError
from sslbench.finetune.decode import meta_path
from sslbench.finetune.evaluate import score_files
from sslbench.finetune.rows import RowOptions
from sslbench.finetune.scoring import Score
from sslbench.finetune.transcripts import read_transcripts
from sslbench.integrations.espnet.asr import AsrRun, stage_seconds
from sslbench.integrations.espnet.claim import decode_yaml
from sslbench.integrations.espnet.export import CUTS
from sslbench.io import read_jsonl, read_yaml, sha256_json, write_json, write_jsonl
from sslbench.tiers import Tier


def write_row(
    settings: AsrRun,
    hypotheses: Path,
    system: str,
    results: Path | str,
    tier: Tier,
) -> Score:
    """Score a finished run against its test manifest and save evaluation `asr_espnet`.

    `OUT/hyp/SPLIT.jsonl` receives the hypotheses by the manifest's cuts, for `sslbench score` too. A cut that
    could not be exported has none there, and counts as if nothing had been recognised.

    Raises:
        SslbenchError: missing hypotheses, or a row without what the schema demands.
    """
    if not hypotheses.is_file():
        raise SslbenchError(f"{hypotheses}: missing; remove {settings.out}/DONE.decode and run again")
    out = Path(settings.out)
    texts = by_cut(out / "data" / "test", hypotheses)
    cuts = [(cut.id, cut.duration) for cut in open_manifest(settings.test)]
    path = out / "hyp" / f"{split_name(settings.test)}.jsonl"
    write_jsonl(path, [{"id": cut, "text": texts[cut]} for cut, _ in cuts if cut in texts])
    heard_s = sum(duration for cut, duration in cuts if cut in texts)
    write_json(meta_path(path), _facts(settings, out, heard_s, len(cuts) - len(texts)))
    options = RowOptions(system, str(results), tier, settings.upstream, "asr_espnet")
    return score_files(settings.test, path, row=options)


def by_cut(data: Path, hypotheses: Path) -> dict[str, str]:
    """What was recognised in each cut of a manifest, its utterances joined in their order.

    Args:
        data: folder that `export` wrote.
        hypotheses: ESPnet's `id words` lines.
    """
    heard = read_transcripts(hypotheses)
    texts: dict[str, list[str]] = {}
    for row in read_jsonl(data / CUTS):
        found = heard.pop(row["id"], None)
        texts.setdefault(row["cut"], []).append(found.text if found else "")
    if heard:
        raise SslbenchError(f"{hypotheses}: {next(iter(heard))!r} is no utterance of {data}; decode again")
    return {cut: " ".join(text for text in parts if text) for cut, parts in texts.items()}


def _facts(settings: AsrRun, out: Path, heard_s: float, skipped: int) -> dict[str, Any]:
    """As `sslbench decode` writes them beside its hypotheses."""
    config, decoding = read_yaml(out / "train.yaml"), read_yaml(decode_yaml(settings))
    kind, weights_sha256, _ = settings.built
    train, test = describe(settings.train), describe(settings.test)
    lr = config.get("optim_conf", {}).get("lr")  # ESPnet's default where it is not stated
    seconds = stage_seconds(out)
    stages = {f"{stage}_s": seconds[stage] for stage in ("collect_stats", "train")}
    return {
        "experiment": str(out),
        "upstream": settings.upstream,
        "weights": kind,
        "weights_sha256": weights_sha256,
        "config_sha256": sha256_json(config),
        "seed": settings.seed,
        "data": test.data.model_dump(),
        "data_sha256": test.sha256,
        "decoder": f"beam {decoding.get('beam_size', 20)}, CTC weight {decoding.get('ctc_weight', 0.5)}",
        "methods": {
            "engine": f"espnet {version('espnet')}",
            "encoder": str(config.get("encoder", "rnn")),
            "units": settings.units,
            "rtf": "whole process, start and loading included",
        },
        "flags": _flags(settings.upstream, kind),
        "train": {"wall_s": sum(stages.values()), "train_hours": train.data.hours},
        "stages": stages,
        "search": None if lr is None else {"lr_grid": [lr], "lr": lr, "selected_on": "dev", "scores": {}},
        "wall_s": seconds["decode"],
        "rtf": seconds["decode"] / heard_s,
        "skipped": skipped,
    }


def _flags(upstream: str, weights: str) -> list[str]:
    """ESPnet's front end leaves s3prl's own upstreams in training mode, frozen or not; ours refuse it."""
    if upstream in registry.upstreams() or weights == "none":
        return []
    return ["ESPnet trains with the dropout of this frozen upstream active"]
