"""One learning rate, or a grid of them judged on dev."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.experiment import CONFIG, SEARCH
from sslbench.finetune.trainer import run
from sslbench.io import only_one, write_json
from sslbench.train.dist import launched_as, leave


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Train a recognizer; with `lr_grid`, one per rate in `EXP/lr-RATE`, of which the best on dev is chosen.

    Returns:
        The (chosen) run's `DONE`.

    Raises:
        SslbenchError: bad settings, before a folder is made; else as `trainer.run`.
    """
    config.check()
    folder = Path(config.exp_dir)
    features = folder / "features"
    is_main = launched_as()[0] == 0
    try:
        with only_one(folder) if is_main else nullcontext():
            done = _grid(config, folder, features) if config.lr_grid else run(config, features)
            if is_main:
                shutil.rmtree(features, ignore_errors=True)  # large, and of no use any more
    finally:
        leave()
    return done


def _grid(config: FinetuneConfig, folder: Path, features: Path) -> dict[str, Any]:
    if (folder / CONFIG).is_file():
        raise SslbenchError(f"{folder}: holds a run without lr_grid; choose another exp_dir")
    found: dict[float, dict[str, Any]] = {}
    for lr in config.lr_grid:
        one = dataclasses.replace(config, lr=lr, lr_grid=[], exp_dir=str(folder / f"lr-{lr:g}"))
        found[lr] = run(one, features)
    chosen = min(found, key=lambda lr: (found[lr]["dev_wer"], found[lr]["dev_cer"]))
    write_json(
        folder / SEARCH,
        {
            "chosen": f"lr-{chosen:g}",
            "lr": chosen,
            "lr_grid": config.lr_grid,
            "selected_on": "dev",
            "scores": {f"{lr:g}": done["dev_wer"] for lr, done in found.items()},
            "wall_s": sum(done["wall_s"] for done in found.values()),
        },
    )
    return found[chosen]
