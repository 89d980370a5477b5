"""What a finished run came to, and the upstream checkpoint that it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sslbench import config as configs
from sslbench import io
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.data.manifests import describe
from sslbench.errors import SslbenchError
from sslbench.pretrain.batches import majority_share
from sslbench.pretrain.config import PretrainConfig, identity
from sslbench.pretrain.inputs import fit_inputs
from sslbench.train import checkpoint
from sslbench.train.average import average_between
from sslbench.train.logging import peak_mem_bytes
from sslbench.train.randomness import derive
from sslbench.upstreams import build_model

SUMMARY, DONE = "summary.json", "DONE"


def is_complete(exp: Path, max_steps: int) -> bool:
    """Whether the run has made all its updates."""
    return (exp / DONE).is_file() and (exp / SUMMARY).is_file() and (
        io.read_json(exp / SUMMARY)["steps"] >= max_steps
    )  # fmt: skip


def write(exp: Path, config: PretrainConfig, facts: dict[str, Any]) -> None:
    """Write `summary.json`, then `DONE`.

    Args:
        exp: folder of the run.
        config: its settings.
        facts: steps, wall_s, audio_s, the machine, and the last train and dev loss and accuracy.
    """
    audio_s, wall_s = facts.pop("audio_s"), facts["wall_s"]
    manifest = config.dev_manifest or config.train_manifest
    values = {
        **facts,
        "audio_hours_seen": round(audio_s / 3600, 6),
        "audio_s_per_s": round(audio_s / max(wall_s, 1e-9), 2),
        "peak_mem_bytes": peak_mem_bytes(),
        "majority_share": majority_share(manifest),
        "config_sha256": io.sha256_json(identity(configs.to_dict(config))),
    }
    io.write_json(exp / SUMMARY, values)
    io.write_text(exp / DONE, f"{facts['steps']}\n")
    print(f"wrote {exp / SUMMARY}")


def export(exp: Path, out: Path, step: int | None = None, average: bool | None = None) -> UpstreamCheckpoint:
    """Write the run's weights as an upstream checkpoint.

    Args:
        exp: folder of the run.
        out: folder to write.
        step: which checkpoint; the newest whole one by default.
        average: averaged weights; None takes them when the run kept an average.

    Raises:
        SslbenchError: no such run or checkpoint, or no average.
    """
    config = load_config(exp)
    root = exp / "checkpoints"
    chosen = checkpoint.newest_good(root) if step is None else step
    if chosen is None or chosen not in checkpoint.steps_in(root):
        have = ", ".join(map(str, checkpoint.steps_in(root))) or "none"
        raise SslbenchError(f"{root}: no checkpoint of step {step}; there are: {have}")
    snapshot = checkpoint.load(checkpoint.folder_of(root, chosen))
    if average and snapshot.average is None:
        raise SslbenchError(f"{exp}: kept no average; train with average_every above 0")
    state, span = snapshot.model, None
    if snapshot.average is not None and average is not False:
        state, span = _averaged(root, snapshot)
    card = {"steps": chosen, "averaged_steps": span, **_training_facts(exp, config, snapshot)}
    return _save(config, state, out, "trained", card)


def export_initial(exp: Path, out: Path) -> UpstreamCheckpoint:
    """Write the weights that the run began with: the same architecture, untrained."""
    config = load_config(exp)
    torch.manual_seed(derive(config.seed, "weights"))
    model = build_model(config.upstream, config.model)
    fit_inputs(model, config)
    return _save(config, model.state_dict(), out, "random", {"steps": 0, "seed": config.seed})


def load_config(exp: Path) -> PretrainConfig:
    """The settings of a run. Raises `SslbenchError` when the folder holds none."""
    if not (exp / "config.yaml").is_file():
        raise SslbenchError(
            f"{exp}: is no pretraining run (no config.yaml); make one with 'sslbench pretrain'"
        )
    return configs.load(PretrainConfig, exp / "config.yaml")


def _averaged(root: Path, late: checkpoint.Snapshot) -> tuple[Any, list[int]]:
    """The average since the oldest checkpoint that is kept: the poor early weights drop out."""
    assert late.average is not None  # noqa: S101  # for the type checker; the caller has looked
    for step in checkpoint.steps_in(root):
        if 0 < step < late.step:
            early = checkpoint.load(checkpoint.folder_of(root, step))
            if early.average is not None:
                return average_between(early.average, step, late.average, late.step), [step, late.step]
    return late.average, [0, late.step]


def _training_facts(exp: Path, config: PretrainConfig, snapshot: checkpoint.Snapshot) -> dict[str, Any]:
    about = describe(config.train_manifest) if Path(config.train_manifest).exists() else None
    facts: dict[str, Any] = {
        "preset": config.upstream,
        "corpus": about.data.corpus if about else None,
        "split": about.data.split if about else None,
        "synthetic": about.data.synthetic if about else None,
        "train_hours": about.data.hours if about else None,
        "data_sha256": about.sha256 if about else None,
        "units": _units_facts(Path(config.train_manifest).parent),
        "optimizer": config.optimizer,
        "seed": config.seed,
        "config_sha256": io.sha256_json(identity(configs.to_dict(config))),
        "audio_hours_seen": round(snapshot.trainer["audio_s"] / 3600, 6),
        "wall_s": round(snapshot.trainer["wall_s"], 3),
        "audio_s_per_s": round(snapshot.trainer["audio_s"] / max(snapshot.trainer["wall_s"], 1e-9), 2),
        **snapshot.trainer["latest"],
    }
    if (exp / SUMMARY).is_file():
        facts["majority_share"] = io.read_json(exp / SUMMARY)["majority_share"]
        facts["peak_mem_bytes"] = io.read_json(exp / SUMMARY)["peak_mem_bytes"]
    return facts


def _units_facts(folder: Path) -> dict[str, Any]:
    """Which k-means made the labels, where it lies beside them as `sslbench units` leaves it."""
    path = folder / "units.yaml"
    facts = io.read_yaml(path) if path.is_file() else {}
    return {key: facts[key] for key in ("feature", "clusters", "corpus", "hours", "sha256") if key in facts}


def _save(
    config: PretrainConfig, state: Any, out: Path, weights: str, card: dict[str, Any]
) -> UpstreamCheckpoint:
    model = build_model(config.upstream, config.model)
    made = UpstreamCheckpoint(model.family, configs.to_dict(model.config), state, weights, card)
    made.save(out)
    return made
