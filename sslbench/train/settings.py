"""What the loop itself is told, and whether a folder's run may be gone on with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sslbench import config as configs
from sslbench.errors import SslbenchError

CONFIG = "config.yaml"


@dataclass(frozen=True)
class LoopSettings:
    """How long to train, what to keep, how often to look."""

    exp_dir: str
    """Folder of the run."""
    max_steps: int
    """Updates."""
    seed: int
    """Of every random number."""
    log_every: int
    """Updates per log line."""
    valid_every: int
    """Updates between validations."""
    save_every: int
    """Updates between checkpoints."""
    keep_last: int
    """Checkpoints kept."""
    accum: int = 1
    """Batches per update and process."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """"bf16": autocast alone; "fp16": with a loss scale."""
    average_every: int = 0
    """Updates between additions to the running average of the weights; 0 for none."""
    bad_updates: int = 0
    """Updates in a row that may be skipped because loss or gradient are not finite."""
    mean_first: bool = False
    """Divide by the frames before the backward pass where one batch is the update, so that the model's
    gradients are a mean's; otherwise gradients of the sum are divided afterwards (k2SSL's penalties on
    activations are tuned for a sum)."""
    allow_reshard: bool = False
    """Go on though the run was made by another number of processes."""
    watchdog: bool = False
    """Roll back once, with half the rate, when loss, gradients or activations go wrong; then stop."""
    tensorboard: bool = False
    """Also write curves for tensorboard, where it is installed."""
    utterance_log: bool = False
    """Write which cuts each update used, to `utterances-RANK.jsonl`."""


def claim(config: Any, may_change: Collection[str]) -> dict[str, Any]:
    """Check that `config.exp_dir` is free or holds this run. Returns the settings' plain form.

    Args:
        config: a configuration dataclass with `exp_dir`.
        may_change: settings that a resumed run may set differently.

    Raises:
        SslbenchError: the folder holds a run with other settings; names them.
    """
    values, path = configs.to_dict(config), Path(config.exp_dir) / CONFIG
    if not path.is_file():
        return values
    stored = configs.to_dict(configs.load(type(config), path))
    before, now = _flat(stored, may_change), _flat(values, may_change)
    changed = [
        f"{key} ({before.get(key)!r} -> {now.get(key)!r})"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise SslbenchError(
            f"{config.exp_dir}: holds a run with other settings: {', '.join(changed)}; "
            f"use another exp_dir, or the settings of the run's {CONFIG}"
        )
    return values


def _flat(values: Mapping[str, Any], may_change: Collection[str], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key in may_change:
            continue
        if isinstance(value, Mapping):
            flat.update(_flat(value, (), f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
