"""Diarization error rate: missed, false and confused speaker time over all speaker time.

Exact on times, with the best one-to-one map of speakers; overlap counts once per speaker. A collar takes
the time around every reference boundary out of the score, as NIST's md-eval and pyannote.metrics do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Turn:
    """One speaker from start to end, in seconds."""

    start: float
    end: float
    speaker: str


@dataclass(frozen=True)
class Errors:
    """Seconds of one recording."""

    total: float
    """Reference speaker time, counting each speaker."""
    missed: float
    false: float
    confused: float

    @property
    def wrong(self) -> float:
        """All errors."""
        return self.missed + self.false + self.confused


def errors(ref: Sequence[Turn], hyp: Sequence[Turn], collar_s: float = 0.0) -> Errors:
    """Score one recording.

    Args:
        ref: what was said.
        hyp: what was answered; speaker names are arbitrary.
        collar_s: taken out on either side of every start and end of a reference turn.
    """
    ref, hyp = _merged(ref), _merged(hyp)
    edges = {t for turn in [*ref, *hyp] for t in (turn.start, turn.end)}
    boundaries = sorted({t for turn in ref for t in (turn.start, turn.end)})
    edges |= {t + side for t in boundaries for side in (-collar_s, collar_s)}
    times = np.array(sorted(edges))
    if len(times) < 2:
        return Errors(0.0, 0.0, 0.0, 0.0)
    middles, seconds = (times[1:] + times[:-1]) / 2, np.diff(times)
    if collar_s > 0:
        for boundary in boundaries:
            seconds[np.abs(middles - boundary) < collar_s] = 0.0
    said, heard = _active(ref, middles), _active(hyp, middles)  # (speakers, pieces)
    n_ref, n_hyp = said.sum(axis=0), heard.sum(axis=0)
    right = _matched(said, heard, seconds)
    both = float((np.minimum(n_ref, n_hyp) * seconds).sum())
    return Errors(
        total=float((n_ref * seconds).sum()),
        missed=float((np.maximum(n_ref - n_hyp, 0) * seconds).sum()),
        false=float((np.maximum(n_hyp - n_ref, 0) * seconds).sum()),
        confused=max(0.0, both - right),
    )


def _merged(turns: Sequence[Turn]) -> list[Turn]:
    """Turns of one speaker that touch or overlap as one, so that no boundary lies within speech."""
    merged: list[Turn] = []
    for turn in sorted(turns, key=lambda t: (t.speaker, t.start)):
        last = merged[-1] if merged else None
        if last is not None and last.speaker == turn.speaker and turn.start <= last.end:
            merged[-1] = Turn(last.start, max(last.end, turn.end), turn.speaker)
        else:
            merged.append(turn)
    return merged


def _active(turns: Sequence[Turn], middles: NDArray[np.float64]) -> NDArray[np.int64]:
    """(speakers, pieces): 1 where a speaker talks."""
    names = sorted({turn.speaker for turn in turns})
    active = np.zeros((len(names), len(middles)), dtype=np.int64)
    for turn in turns:
        active[names.index(turn.speaker), (middles > turn.start) & (middles < turn.end)] = 1
    return active


def _matched(said: NDArray[np.int64], heard: NDArray[np.int64], seconds: NDArray[np.float64]) -> float:
    """Speaker time that the best one-to-one map of speakers gets right."""
    from scipy.optimize import linear_sum_assignment

    if not len(said) or not len(heard):
        return 0.0
    together = (said * seconds) @ heard.T
    rows, columns = linear_sum_assignment(-together)
    return float(together[rows, columns].sum())


def turns_of(active: NDArray[np.bool_], frame_s: float, median: int = 1) -> list[Turn]:
    """Turns from (F, S) frame decisions.

    Args:
        active: per frame and speaker.
        frame_s: seconds per frame.
        median: odd width in frames of a median filter over time; 1 is none. Zeros lie outside.
    """
    from scipy.signal import medfilt

    turns: list[Turn] = []
    for speaker, frames in enumerate(active.T.astype(np.float64)):
        smooth = medfilt(frames, median) if median > 1 else frames
        (changes,) = np.nonzero(np.diff(np.pad(smooth, 1)))
        turns += [
            Turn(float(start * frame_s), float(end * frame_s), str(speaker))
            for start, end in zip(changes[::2], changes[1::2], strict=True)
        ]
    return turns
