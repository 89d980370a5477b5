"""What a task will take, said before it starts: audio, disk, time."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.probe.encoder import Encoder
from sslbench.probe.plan import Plan
from sslbench.probe.pooled import make_grid
from sslbench.probe.store import Store, cache_bytes, is_kept
from sslbench.probe.task import Example, ProbeTask, UntrainedTask
from sslbench.progress import clock

if TYPE_CHECKING:
    from sslbench.probe.runner import ProbeSettings

TRIAL_S = 4.0  # of noise in each of two clips, to time the upstream


class _Noise(Store):
    """Random features of the right sizes."""

    def __init__(self, encoder: Encoder, examples: Sequence[Example], pooled: bool) -> None:
        self.layers, self.dim = encoder.layers, encoder.dim
        self._frames = [1 if pooled else encoder.num_frames(e.cut.num_samples) for e in examples]

    def readable(self) -> list[bool]:
        return [True] * len(self._frames)

    def clips(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        return [torch.randn(self.layers, self._frames[n], self.dim) for n in numbers]


def announce(
    task: ProbeTask, plan: Plan, encoder: Encoder, settings: ProbeSettings,
    missing: Mapping[str, Sequence[float]], units: int,
) -> None:  # fmt: skip
    """Say what the missing units of a task will take: clips, hours, disk, and the time of the upstream's
    pass (of one per batch and evaluation, where features are not kept) and of the steps, both from trials
    on noise; the heads' part of evaluations comes on top.

    Args:
        task: to do.
        plan: its clips.
        encoder: timed on a few seconds of noise.
        settings: limit and number format of the cache.
        missing: grid points to do, by fold.
        units: all grid points of all folds.
    """
    seconds = sum(example.cut.duration for example in plan.examples)
    disk = cache_bytes(plan.examples, encoder, task.pooled, settings.cache_precision)
    live = not is_kept(task.pooled, disk, settings.cache_gb)
    held = "above --cache_gb, so computed for each batch" if live else "on disk"
    speed_x = _speed_x(encoder)
    heard_s = sum(_heard_s(task, plan, fold, len(v)) for fold, v in missing.items() if v) if live else seconds
    steps = ""
    with torch.random.fork_rng(devices=[]):
        if not isinstance(task, UntrainedTask):
            took = sum(
                _steps_s(task, plan, fold, encoder, settings, lrs) for fold, lrs in missing.items() if lrs
            )
            steps = f", {task.protocol.steps} steps each about {clock(took)}"
    print(
        f"{task.name}: {len(plan.examples)} clips, {seconds / 3600:.2f} h; "
        f"{sum(map(len, missing.values()))} of {units} units to do; "
        f"{'means' if task.pooled else 'features'} {disk / 1e6:.1f} MB {held}; "
        f"upstream about {clock(heard_s / speed_x)} ({speed_x:.0f}x real time){steps}",
        file=sys.stderr,
        flush=True,
    )


def _heard_s(task: ProbeTask, plan: Plan, fold: str, points: int) -> float:
    """Seconds of audio that pass the upstream when nothing is cached: every batch and every evaluation."""
    own = {
        part: [plan.examples[n].cut.duration for n in numbers] for part, numbers in plan.folds[fold].items()
    }
    if isinstance(task, UntrainedTask):
        return points * (sum(own["dev"]) + sum(own["test"]))
    protocol = task.protocol
    batch_s = protocol.batch_clips * sum(own["train"]) / max(1, len(own["train"]))
    evaluation_s = sum(own["dev"]) + (sum(own["test"]) if task.test_selected else 0.0)
    evaluations = math.ceil(protocol.steps / protocol.eval_every)
    return protocol.steps * batch_s + evaluations * evaluation_s + sum(own["test"])


def _steps_s(
    task: ProbeTask, plan: Plan, fold: str, encoder: Encoder, settings: ProbeSettings, lrs: Sequence[float]
) -> float:
    """All steps of a fold, from one step after a first that warms up."""
    train = [plan.examples[n] for n in plan.folds[fold]["train"]]
    if not train:
        return 0.0  # the run will say what is missing
    chosen = [train[i] for i in next(task.batches(train, 0))]
    grid = make_grid(task, _Noise(encoder, chosen, task.pooled), chosen, lrs, 0, settings.device)
    for _ in range(2):
        started = time.monotonic()
        grid.update(range(len(chosen)), range(len(lrs)))
    return (time.monotonic() - started) * task.protocol.steps


def _speed_x(encoder: Encoder) -> float:
    """Audio seconds per second, of a second trial: the first one warms up."""
    encoder.encode([torch.randn(SAMPLE_RATE_HZ) * 0.1])
    wavs = [torch.randn(int(TRIAL_S * SAMPLE_RATE_HZ)) * 0.1] * 2
    started = time.monotonic()
    encoder.encode(wavs)
    return 2 * TRIAL_S / max(1e-6, time.monotonic() - started)
