"""What a task will take, said before it starts: audio, disk, time."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import torch

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.probe.encoder import Encoder
from sslbench.probe.plan import Plan
from sslbench.probe.store import cache_bytes
from sslbench.probe.task import ProbeTask, UntrainedTask
from sslbench.progress import clock

if TYPE_CHECKING:
    from sslbench.probe.runner import ProbeSettings

TRIAL_S = 4.0  # of noise, to time the upstream


def announce(
    task: ProbeTask, plan: Plan, encoder: Encoder, settings: ProbeSettings, left: int, units: int
) -> None:
    """Print one line: clips and hours, units left, predicted disk, predicted time of the upstream pass.

    The time is that of a pass over all audio, from a trial on noise; the steps' time follows in their
    progress line.
    """
    seconds = sum(example.cut.duration for example in plan.examples)
    disk = cache_bytes(plan.examples, encoder, task.pooled, settings.cache_precision)
    held = "on disk" if disk <= settings.cache_gb * 1e9 else "needed on disk, above --cache_gb"
    kind = "means" if task.pooled else "features"
    speed_x = _speed_x(encoder)
    steps = "" if isinstance(task, UntrainedTask) else f" of {task.protocol.steps} steps"
    print(
        f"{task.name}: {len(plan.examples)} clips, {seconds / 3600:.2f} h; {left} of {units} units{steps} "
        f"to do; {kind} {disk / 1e6:.1f} MB {held}; "
        f"upstream pass about {clock(seconds / speed_x)} ({speed_x:.0f}x real time)",
        file=sys.stderr,
        flush=True,
    )


def _speed_x(encoder: Encoder) -> float:
    wavs = [torch.randn(int(TRIAL_S * SAMPLE_RATE_HZ)) * 0.1]
    started = time.monotonic()
    encoder.encode(wavs)
    return TRIAL_S / max(1e-6, time.monotonic() - started)
