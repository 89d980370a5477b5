"""One learning rate, or a grid of them judged on dev."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.experiment import CONFIG, LOG, SEARCH
from sslbench.finetune.trainer import run
from sslbench.io import only_one, read_json, read_jsonl, write_json
from sslbench.train.dist import launched_as, leave
from sslbench.train.update import DivergedError


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Train a recognizer; with `lr_grid`, one per rate in `EXP/lr-RATE`, of which the best on dev is chosen.

    Returns:
        The (chosen) run's `DONE`.

    Raises:
        SslbenchError: bad settings, before a folder is made; a grid in a single run's folder, or the reverse;
            as `trainer.run`, though a grid leaves out the rates that diverge, unless all do.
    """
    config.check()
    folder = Path(config.exp_dir)
    features = folder / "features"
    is_main = launched_as()[0] == 0
    try:
        with only_one(folder) if is_main else nullcontext():
            _check_unmixed(config, folder)
            done = _grid(config, folder, features) if config.lr_grid else run(config, features)
            if is_main:
                shutil.rmtree(features, ignore_errors=True)  # large, and of no use any more
    finally:
        leave()
    return done


def _check_unmixed(config: FinetuneConfig, folder: Path) -> None:
    """What is decoded from a folder is either a grid's choice or its only run."""
    other, kind = (CONFIG, "without") if config.lr_grid else (SEARCH, "with")
    if (folder / other).is_file():
        raise SslbenchError(f"{folder}: holds a run {kind} lr_grid; choose another exp_dir")


def _grid(config: FinetuneConfig, folder: Path, features: Path) -> dict[str, Any]:
    found: dict[float, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    before = read_json(folder / SEARCH).get("failed", {}) if (folder / SEARCH).is_file() else {}
    for lr in config.lr_grid:
        name, place = f"{lr:g}", folder / f"lr-{lr:g}"
        if name in before and place.is_dir():
            failed[name] = before[name]
            continue
        try:
            found[lr] = run(dataclasses.replace(config, lr=lr, lr_grid=[], exp_dir=str(place)), features)
        except DivergedError as error:
            failed[name] = str(error)
            if launched_as()[0] == 0:
                print(f"{place}: left out of the choice: {error}", file=sys.stderr)
    if not found:
        raise SslbenchError(f"{folder}: every rate of lr_grid diverged; the last: {[*failed.values()][-1]}")
    chosen = min(found, key=lambda lr: (found[lr]["dev_wer"], found[lr]["dev_cer"]))
    lost_s = sum(_logged_s(folder / f"lr-{name}" / LOG) for name in failed)
    write_json(
        folder / SEARCH,
        {
            "chosen": f"lr-{chosen:g}",
            "lr": chosen,
            "lr_grid": config.lr_grid,
            "selected_on": "dev",
            "scores": {f"{lr:g}": done["dev_wer"] for lr, done in found.items()},
            "failed": failed,
            "wall_s": sum(done["wall_s"] for done in found.values()) + lost_s,
        },
    )
    return found[chosen]


def _logged_s(log: Path) -> float:
    """What a run that did not end had cost at its last line in the log."""
    return max((row.get("wall_s", 0.0) for row in read_jsonl(log)), default=0.0)
