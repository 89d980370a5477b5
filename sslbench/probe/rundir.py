"""A probe run on disk: EXP/<task>/{run.json, [fold/]lr-*/…}; units are finished or absent."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sslbench.errors import SslbenchError
from sslbench.io import atomic_path, read_json, read_jsonl, sha256_json, write_json, write_jsonl
from sslbench.probe.encoder import same_sample
from sslbench.probe.resume import Unfinished
from sslbench.probe.task import Prediction
from sslbench.probe.train import Point

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
            identity: everything that decides a single unit's result.
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

    def sample(self, new: list[list[float]], tolerance: float) -> list[list[float]]:
        """The upstream's sample that the run was begun with where `new` is like it, else `new`."""
        path = self.folder / RUN
        old = read_json(path)["identity"].get("outputs") if path.is_file() else None
        return old if old and same_sample(old, new, tolerance) else new

    def run(self) -> dict[str, Any]:
        """The content of `run.json`. Raises `SslbenchError` when the task was never started."""
        content: dict[str, Any] = read_json(self.folder / RUN)
        return content

    def lr_folder(self, lr: float, fold: str = "") -> Path:
        """The folder of one unit: a grid point (of a fold)."""
        return self.folder / fold / f"lr-{lr!r}"

    def unfinished(self, fold: str, key: str) -> Unfinished:
        """Where the training of a fold's grid points is kept until it is done."""
        return Unfinished(self.folder / fold / "training.pt", sha256_json([key, fold]))

    def finished(self, fold: str = "") -> dict[float, dict[str, Any]]:
        """`done.json` of every finished unit of a fold, by grid point."""
        found = [read_json(path) for path in sorted((self.folder / fold).glob(f"lr-*/{DONE}"))]
        return {float(done["lr"]): done for done in found}

    def finish(self, point: Point, fold: str, cost: dict[str, float]) -> None:
        """Write everything of one unit; `done.json` comes last."""
        from safetensors.torch import save_file

        folder = self.lr_folder(point.value, fold)
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(folder / "dev.jsonl", point.best_dev)
        write_predictions(folder / "test.jsonl", point.test)
        if point.test_selected:
            write_predictions(folder / "test_selected.jsonl", point.test_selected)
        write_json(folder / "layer_weights.json", point.layer_shares)
        write_jsonl(folder / "curve.jsonl", point.curve)
        if point.best_state:
            with atomic_path(folder / "probe.safetensors") as temporary:
                save_file({name: value.contiguous() for name, value in point.best_state.items()}, temporary)
        done: dict[str, Any] = {
            "lr": point.value,
            "fold": fold,
            "best_step": point.best_step,
            "skipped_updates": point.skipped_updates,
            "stopped_at": point.stopped_at,
        }
        write_json(folder / DONE, {**done, "cost": cost})

    def predictions(self, lr: float, part: str, fold: str = "") -> list[Prediction]:
        """The rows of a finished unit on "dev", "test", or (some tasks) "test_selected"."""
        return [Prediction(**row) for row in read_jsonl(self.lr_folder(lr, fold) / f"{part}.jsonl")]

    def drop_cache(self) -> None:
        """Remove the features, which can be computed again."""
        shutil.rmtree(self.cache, ignore_errors=True)


def write_predictions(path: Path, rows: list[Prediction]) -> None:
    """One JSON line per clip (or trial): id, hyp, ref, speaker."""
    write_jsonl(path, [vars(row) for row in rows])
