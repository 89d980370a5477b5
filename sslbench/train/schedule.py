"""Learning rates over training, and the count that the models' own schedules run on."""

from __future__ import annotations

import math

BATCH_COUNT_EVERY = 10  # updates, as k2SSL sets it


def batch_count(step: int, update_s: float, ref_duration_s: float) -> float:
    """Duration-adjusted batches done before an update, held for 10 updates.

    k2SSL (icefall `egs/librispeech/SSL`, `get_adjusted_batch_count`): updates times the nominal audio of an
    update over all processes, over a reference of 600 s. Models anneal dropout and skips by this count.

    Args:
        step: number of the update, from 0.
        update_s: nominal audio of one update: seconds per batch × batches per update × processes.
        ref_duration_s: audio of one batch in the schedules' unit.
    """
    return step // BATCH_COUNT_EVERY * BATCH_COUNT_EVERY * update_s / ref_duration_s


def polynomial(step: int, steps: int, warmup_steps: int, power: float) -> float:
    """fairseq's `polynomial_decay`: linear warm-up, then (1 - progress)^power down to 0 at the last step."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = 1 - (step - warmup_steps) / max(1, steps - warmup_steps)
    return float(max(0.0, left) ** power)


def cosine(step: int, steps: int, warmup_steps: int, floor: float = 0.01) -> float:
    """Linear warm-up, then half a cosine down to `floor` at the last step; floor 1 stays at the peak."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
