"""A probe run on disk: EXP/<task>/{run.json, lr-*/…}; a learning rate is finished or absent."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sslbench.errors import SslbenchError
from sslbench.io import atomic_path, read_json, read_jsonl, sha256_json, write_json, write_jsonl
from sslbench.probe.task import Prediction
from sslbench.probe.train import Candidate

RUN, DONE = "run.json", "done.json"


class RunDir:
    """The folder of one task of one system."""

    def __init__(self, folder: Path) -> None:
        """Name it; nothing is created yet."""
        self.folder = folder

    @property
    def cache(self) -> Path:
        """Where features lie while the task is unfinished."""
        return self.folder / "cache"

    def claim(self, identity: dict[str, Any], facts: dict[str, Any]) -> None:
        """Start or go on with a run.

        Args:
            identity: everything that decides a single learning rate's result.
            facts: what the row also needs to be rebuilt from the folder.

        Raises:
            SslbenchError: the folder holds a run with another identity, naming what differs.
        """
        path = self.folder / RUN
        if path.is_file():
            stored = read_json(path)["identity"]
            differing = [
                key for key in identity if sha256_json(stored.get(key)) != sha256_json(identity[key])
            ]
            if differing:
                raise SslbenchError(
                    f"{self.folder}: holds a run with another {', '.join(differing)}; "
                    "use another --out, or remove it"
                )
        write_json(path, {"identity": identity, "facts": facts})

    def run(self) -> dict[str, Any]:
        """The content of `run.json`. Raises `SslbenchError` when the task was never started."""
        content: dict[str, Any] = read_json(self.folder / RUN)
        return content

    def lr_folder(self, lr: float) -> Path:
        """The folder of one learning rate."""
        return self.folder / f"lr-{lr!r}"

    def finished(self) -> dict[float, dict[str, Any]]:
        """`done.json` of every finished learning rate."""
        found = [read_json(path) for path in sorted(self.folder.glob(f"lr-*/{DONE}"))]
        return {float(done["lr"]): done for done in found}

    def finish(self, candidate: Candidate, test: list[Prediction], cost: dict[str, float]) -> None:
        """Write everything of one learning rate; `done.json` comes last."""
        from safetensors.torch import save_file

        folder = self.lr_folder(candidate.lr)
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(folder / "dev.jsonl", candidate.best_dev)
        write_predictions(folder / "test.jsonl", test)
        write_json(folder / "layer_weights.json", candidate.probe.layer_shares())
        write_jsonl(folder / "curve.jsonl", candidate.curve)
        with atomic_path(folder / "probe.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in candidate.best_state.items()}, temporary)
        done = {
            "lr": candidate.lr,
            "best_step": candidate.best_step,
            "skipped_updates": candidate.skipped_updates,
        }
        write_json(folder / DONE, {**done, "cost": cost})

    def predictions(self, lr: float, part: str) -> list[Prediction]:
        """The answers of a finished learning rate on "dev" or "test"."""
        return [Prediction(**row) for row in read_jsonl(self.lr_folder(lr) / f"{part}.jsonl")]

    def drop_cache(self) -> None:
        """Remove the features, which can be computed again."""
        shutil.rmtree(self.cache, ignore_errors=True)


def write_predictions(path: Path, rows: list[Prediction]) -> None:
    """One JSON line per clip: id, hyp, ref, speaker."""
    write_jsonl(path, [vars(row) for row in rows])
