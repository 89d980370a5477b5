"""The result row of a pretraining run: what was learnt on held-out audio, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sslbench import config as configs
from sslbench import io, provenance
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.data.manifests import describe
from sslbench.errors import SslbenchError
from sslbench.pretrain.config import PretrainConfig, identity
from sslbench.pretrain.plan import Measured, Plan
from sslbench.pretrain.summary import SUMMARY, load_config
from sslbench.report.schema import Data, Metric, ResultRow
from sslbench.report.store import make_row
from sslbench.train import checkpoint
from sslbench.train.loop import CHECKPOINTS

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
    if config.dev_manifest is None or not facts.keys() >= {"dev_acc", "dev_loss"}:
        raise SslbenchError(f"{exp}: had no dev_manifest or no finite dev loss: nothing to report")
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
            "device_hours": Metric(value=_device_hours(exp, facts), unit="h", higher_is_better=False),
        },
        cost={name: float(facts[name]) for name in COSTS},
        # the stamp below is that of the machine which exports
        methods={"machine": facts["machine"]} if "machine" in facts else {},
        provenance=provenance.collect(
            io.sha256_json(identity(configs.to_dict(config))), train.sha256, config.seed
        ),
    )


def plan_row(config: PretrainConfig, measured: Measured, made: Plan, system: str, tier: str) -> ResultRow:
    """What pretraining is predicted to cost: an evaluation of its own, never taken for a run's."""
    found = {"device_hours": (made.gpu_hours, "h"), "kwh": (made.kwh, "kWh")}
    return make_row(
        system=system,
        upstream=config.upstream,
        evaluation="plan",
        tier=tier,
        weights="random",
        weights_sha256=None,
        data=Data(corpus="noise", split="plan", synthetic=True, hours=measured.batch_s / 3600),
        metrics={
            name: Metric(value=value, unit=unit, higher_is_better=False)
            for name, (value, unit) in found.items()
            if value is not None
        },
        methods={"energy": measured.energy_method, "machine": measured.device},
        provenance=provenance.collect(
            io.sha256_json(identity(configs.to_dict(config))), io.sha256_json("noise"), config.seed
        ),
    )


def _device_hours(exp: Path, facts: dict[str, Any]) -> float:
    """Wall time times processes, of which each has a GPU where there are any; as many as at the end."""
    root = exp / CHECKPOINTS
    steps = checkpoint.steps_in(root)
    last = checkpoint.folder_of(root, max(steps)) / checkpoint.META if steps else None
    devices = 1 if last is None else io.read_json(last)["world_size"]
    return float(facts["wall_s"]) * int(devices) / 3600


def _percent(share: float, cuts: int) -> Metric:
    return Metric(value=100 * share, unit="%", higher_is_better=True, n=cuts)
