"""The run's log: JSON lines, optionally tensorboard, and the accounting of time and memory."""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from sslbench.errors import SslbenchError
from sslbench.io import read_jsonl, write_jsonl


class JsonLog:
    """Appends rows to a JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> None:
        """Drop the rows of later updates, which a resumed run will make again, and a torn last line."""
        if self.path.is_file():
            write_jsonl(self.path, [row for row in read_jsonl(self.path) if row["step"] <= step])

    def write(self, row: dict[str, Any]) -> None:
        """Append one row, with null for what is not finite. Raises `SslbenchError` when the disk is full."""
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise SslbenchError(
                f"{self.path}: cannot be written ({error}); free space and run the same command again"
            ) from None


class Curves:
    """Tensorboard curves, where tensorboard is installed."""

    def __init__(self, folder: Path, wanted: bool, step: int) -> None:
        self._writer: Any = None
        if wanted:
            with contextlib.suppress(ImportError):
                from torch.utils.tensorboard.writer import SummaryWriter

                self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, row: dict[str, Any], group: str) -> None:
        """Draw the row's numbers."""
        if self._writer is not None:
            for name, value in row.items():
                if isinstance(value, (int, float)) and name != "step":
                    self._writer.add_scalar(f"{group}/{name}", value, row["step"])

    def close(self) -> None:
        """Write out what is pending."""
        if self._writer is not None:
            self._writer.close()


class Meter:
    """What happened since the last log line: sums that are resumed exactly, and times that are not."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.restart_clock()

    def restart_clock(self) -> None:
        """Begin a window of time."""
        self._began = time.monotonic()
        self.wait_s = self.audio_s = 0.0
        self.steps = 0

    def add(self, sums: dict[str, float], audio_s: float) -> None:
        """Take in one update: summed loss, frames and metrics, and the audio of all processes."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.audio_s += audio_s
        self.steps += 1

    def close(self) -> tuple[dict[str, float], dict[str, float]]:
        """End the window.

        Returns:
            Means per frame (`loss`, `acc`, …), and the cost: `audio_s_per_s`, `audio_hours_per_s`,
            `data_wait_share`, `step_s`, `peak_mem_bytes`.
        """
        wall_s = max(time.monotonic() - self._began, 1e-9)
        means = per_frame(self.sums)
        cost = {
            "audio_s_per_s": round(self.audio_s / wall_s, 2),
            "audio_hours_per_s": round(self.audio_s / wall_s / 3600, 6),
            "data_wait_share": round(self.wait_s / wall_s, 4),
            "step_s": round(wall_s / max(1, self.steps), 5),
            "peak_mem_bytes": peak_mem_bytes(),
        }
        self.sums = {}
        self.restart_clock()
        return means, cost


def per_frame(sums: dict[str, float]) -> dict[str, float]:
    """Sums over frames as means; `correct` becomes `acc`, also as the beginning of a name."""
    frames = max(1.0, sums.get("frames", 0.0))
    means = {key: value / frames for key, value in sums.items() if key != "frames"}
    return {key.replace("loss_sum", "loss").replace("correct", "acc"): mean for key, mean in means.items()}


def peak_mem_bytes() -> int:
    """Most memory held so far: of the GPU by tensors, or of this process without one."""
    if torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
