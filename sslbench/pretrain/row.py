"""The result row of a pretraining run: what was learnt on held-out audio, and what it cost."""

from __future__ import annotations

from pathlib import Path

from sslbench import config as configs
from sslbench import io, provenance
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.data.manifests import describe
from sslbench.errors import SslbenchError
from sslbench.pretrain.config import identity
from sslbench.pretrain.summary import SUMMARY, load_config
from sslbench.report.schema import Metric, ResultRow
from sslbench.report.store import make_row

COSTS = ("wall_s", "steps", "audio_hours_seen", "audio_s_per_s", "peak_mem_bytes")


def pretrain_row(exp: Path, made: UpstreamCheckpoint, system: str, tier: str) -> ResultRow:
    """Build the row.

    Args:
        exp: folder of a finished run.
        made: its exported checkpoint.
        system: what the report calls the model.
        tier: "smoke", "short" or "full".

    Raises:
        SslbenchError: the run is not finished, or had no dev manifest.
    """
    if not (exp / SUMMARY).is_file():
        raise SslbenchError(f"{exp}: is not finished, so it has no result yet; run 'sslbench pretrain' again")
    config, facts = load_config(exp), io.read_json(exp / SUMMARY)
    if config.dev_manifest is None or "dev_acc" not in facts:
        raise SslbenchError(f"{exp}: had no dev_manifest, so there is nothing to report")
    train, dev = describe(config.train_manifest), describe(config.dev_manifest)
    return make_row(
        system=system,
        upstream=config.upstream,
        evaluation="pretrain",
        tier=tier,
        weights=made.weights,
        weights_sha256=made.weights_sha256,
        data=dev.data,
        metrics={
            "dev_acc": _percent(facts["dev_acc"], dev.cuts),
            "majority_share": _percent(facts["majority_share"], dev.cuts),
            "dev_loss": Metric(value=facts["dev_loss"], unit="nats", higher_is_better=False, n=dev.cuts),
        },
        cost={name: float(facts[name]) for name in COSTS},
        artifacts={},
        provenance=provenance.collect(
            io.sha256_json(identity(configs.to_dict(config))), train.sha256, config.seed
        ),
    )


def _percent(share: float, cuts: int) -> Metric:
    return Metric(value=100 * share, unit="%", higher_is_better=True, n=cuts)
