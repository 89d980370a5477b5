"""The result row of an ESPnet run, computed from its hypotheses file."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from sslbench import registry
from sslbench.data.manifests import describe
from sslbench.errors import SslbenchError
from sslbench.finetune.scoring import score
from sslbench.finetune.transcripts import read_transcripts
from sslbench.integrations.espnet.asr import HERE, AsrRun, stage_seconds
from sslbench.io import read_yaml, sha256_json
from sslbench.provenance import collect
from sslbench.report import store
from sslbench.report.schema import ResultRow, Search
from sslbench.upstreams import load_upstream


def write_row(
    settings: AsrRun,
    hypotheses: Path,
    system: str,
    results: Path | str,
    tier: Literal["smoke", "short", "full"],
) -> tuple[ResultRow, Path]:
    """Score a finished run and save evaluation `asr_espnet`.

    Returns:
        The row and its file.

    Raises:
        SslbenchError: missing hypotheses, or a row without what the schema demands.
    """
    if not hypotheses.is_file():
        raise SslbenchError(f"{hypotheses}: missing; remove {settings.out}/DONE.decode and run again")
    out = Path(settings.out)
    references = read_transcripts(out / "data" / "test" / "text")
    speakers = read_transcripts(out / "data" / "test" / "utt2spk")
    spoken = {i: type(t)(t.id, t.text, speakers[i].text) for i, t in references.items()}
    scored = score(spoken, read_transcripts(hypotheses))
    about = {split: describe(getattr(settings, split)) for split in ("train", "dev", "test")}
    upstream = load_upstream(settings.upstream, ckpt=settings.ckpt)
    seconds = stage_seconds(out)
    config = read_yaml(out / "train.yaml")
    lr = config.get("optim_conf", {}).get("lr")  # ESPnet's default where it is not stated
    decoding = read_yaml(settings.decode_config or HERE / "decode_ctc.yaml")
    row = store.make_row(
        system=system,
        upstream=settings.upstream,
        evaluation="asr_espnet",
        tier=tier,
        weights=getattr(upstream, "weights", "random"),
        weights_sha256=getattr(upstream, "weights_sha256", None),
        data=about["test"].data,
        metrics={"wer": scored.metric("words"), "cer": scored.metric("characters")},
        cost={"wall_s": sum(seconds.values()), **{f"{stage}_s": value for stage, value in seconds.items()}},
        search=None if lr is None else Search(lr_grid=[float(lr)], lr=float(lr), selected_on="dev"),
        methods={
            "engine": f"espnet {version('espnet')}",
            "encoder": str(config.get("encoder", "rnn")),
            "units": settings.units,
            "decoding": f"beam {decoding.get('beam_size', 20)}, CTC weight {decoding.get('ctc_weight', 0.5)}",
        },
        flags=_flags(settings.upstream, getattr(upstream, "weights", "random")),
        artifacts={"hypotheses": os.path.relpath(hypotheses, Path(results) / system)},
        provenance=collect(
            config_sha256=sha256_json(config),
            data_sha256=sha256_json({split: described.sha256 for split, described in about.items()}),
            seed=settings.seed,
        ),
    )
    return row, store.save(row, results)


def _flags(upstream: str, weights: str) -> list[str]:
    """ESPnet's front end leaves s3prl's own upstreams in training mode, frozen or not; ours refuse it."""
    if upstream in registry.upstreams() or weights == "none":
        return []
    return ["ESPnet trains with the dropout of this frozen upstream active"]
