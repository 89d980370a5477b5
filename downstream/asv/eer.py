"""The equal error rate of verification trials, with an interval over speakers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def equal_error_rate(same: Sequence[bool], scores: Sequence[float], weights: Array | None = None) -> float:
    """Where misses and false alarms are equally frequent, in [0, 1].

    The ROC's corners are joined by straight lines, as scikit-learn's curve with scipy's interpolation does
    in s3prl's `EER`. A trial whose score is not finite is wrong at every threshold, so that a head which
    diverged gets 1, the worst, and is never chosen over another one (scikit-learn refuses such scores).

    Args:
        same: whether each trial is of one speaker.
        scores: higher for the same speaker.
        weights: of each trial; equal without.
    """
    target = np.asarray(same, bool)
    value = np.asarray(scores, float)
    wrong = np.where(target, -np.inf, np.inf)
    value = np.where(np.isfinite(value), value, wrong)
    weight = np.ones(len(value)) if weights is None else weights
    order = np.argsort(-value, kind="stable")
    value, target, weight = value[order], target[order], weight[order]
    last = np.append(value[1:] != value[:-1], True)  # one corner per distinct score
    hits = np.append(0.0, np.cumsum(weight * target)[last])
    alarms = np.append(0.0, np.cumsum(weight * ~target)[last])
    if hits[-1] <= 0 or alarms[-1] <= 0:
        return float("nan")
    miss, alarm = 1.0 - hits / hits[-1], alarms / alarms[-1]
    after = int(np.argmax(alarm >= miss))  # miss falls from 1, alarm rises to 1: they cross
    if after == 0:
        return float(alarm[0])
    before = after - 1
    gap = miss[before] - alarm[before]
    share = gap / (gap - (miss[after] - alarm[after]))
    return float(alarm[before] + share * (alarm[after] - alarm[before]))


def interval(
    same: Sequence[bool],
    scores: Sequence[float],
    pairs: Sequence[tuple[str, str]],
    n: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval when speakers are drawn again: a trial counts as often as both of its speakers were.

    Args:
        same: whether each trial is of one speaker.
        scores: of the trials.
        pairs: the two speakers of each trial.
        n: draws.
        seed: of the draws.

    Returns:
        (low, high); both NaN when hardly any draw holds both kinds of trials.
    """
    names = {name: k for k, name in enumerate(sorted({name for pair in pairs for name in pair}))}
    first = np.array([names[a] for a, _ in pairs])
    second = np.array([names[b] for _, b in pairs])
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)).astype(float)
        weights = np.where(first == second, drawn[first], drawn[first] * drawn[second])
        found.append(equal_error_rate(same, scores, weights))
    known = np.array(found)[~np.isnan(found)]
    if len(known) < n / 2:
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)
