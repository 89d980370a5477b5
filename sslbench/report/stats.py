"""Uncertainty of pooled ratios (WER, PER, accuracy): bootstrap intervals and paired tests."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sslbench.errors import SslbenchError

Array = NDArray[np.float64]
_Z95 = 1.959964
_CHUNK = 4_000_000  # drawn indices held at once, so that 10,000 utterances x 1,000 draws stay small


@dataclass(frozen=True)
class PairedTest:
    """The difference between two systems on the same items."""

    difference: float
    """ratio(a) - ratio(b)."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    p_value: float
    """Two-sided, of Student's t: the difference over its bootstrap standard error."""


def bootstrap_ratio(
    errors: Sequence[float],
    lengths: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    n: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval of sum(errors)/sum(lengths) when items, or whole groups, are drawn again.

    Percentile bootstrap (Bisani & Ney, ICASSP 2004). Groups (speakers) are drawn whole, because a
    speaker's utterances fail together; few groups make percentiles too narrow, so both ends are moved
    out by t(G-1)/z · sqrt(G/(G-1)), which tends to 1 as groups grow.

    Args:
        errors: per item; for an accuracy, the number right.
        lengths: per item: reference words, or ones. Zero is allowed (an empty reference).
        groups: per item, for example speakers; one group only counts as none.
        n: draws.
        seed: of the draws.

    Returns:
        (low, high), within the range of the items' own ratios.

    Raises:
        SslbenchError: no items, unequal numbers of them, or total length 0.
    """
    sums, totals = _units(np.asarray(errors, float), np.asarray(lengths, float), groups)
    estimate = float(sums.sum() / totals.sum())
    drawn = _draws(len(sums), n, seed, sums, totals)
    low, high = np.quantile(drawn[0] / drawn[1], (0.025, 0.975))
    widen = _small_sample_factor(len(sums))
    floor, ceiling = _range(errors, lengths)
    low, high = estimate - (estimate - low) * widen, estimate + (high - estimate) * widen
    return max(float(low), floor), min(float(high), ceiling)


def paired_test(
    errors_a: Sequence[float],
    errors_b: Sequence[float],
    lengths: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    n: int = 1000,
    seed: int = 0,
) -> PairedTest:
    """Whether two systems differ on the same items, drawing the same items for both each time.

    The interval is a percentile one, widened as in `bootstrap_ratio`. p is Student's with G-1 degrees
    of freedom and not a share of the draws: with few groups the draws lie within a bounded range, so a share
    falls to its floor for differences that chance gives easily, and Holm's correction reads just that tail.

    Args:
        errors_a: per item, of the first system.
        errors_b: per item, of the second.
        lengths: per item, common to both.
        groups: per item, drawn whole (see `bootstrap_ratio`).
        n: draws.
        seed: of the draws.

    Raises:
        SslbenchError: no items, unequal numbers of them, or total length 0.
    """
    if len(errors_a) != len(errors_b):
        raise SslbenchError(f"a paired test needs the same items, got {len(errors_a)} and {len(errors_b)}")
    gaps, totals = _units(
        np.asarray(errors_a, float) - np.asarray(errors_b, float), np.asarray(lengths, float), groups
    )
    difference = float(gaps.sum() / totals.sum())
    drawn = _draws(len(gaps), n, seed, gaps, totals)
    spread = drawn[0] / drawn[1] - difference
    ends = np.quantile(spread, (0.025, 0.975)) * _small_sample_factor(len(gaps))
    low, high = (difference + float(end) for end in ends)
    return PairedTest(difference, low, high, _t_test(difference, float(spread.std()), len(gaps)))


def mcnemar(right_a: Sequence[bool], right_b: Sequence[bool]) -> float:
    """Exact two-sided McNemar test: the p value of as uneven a split of the items where one system alone is
    right (Psychometrika 12, 1947; binomial form). Items count as independent, so speakers' clusters make it
    too sure; the bootstrap over speakers remains the verdict.

    Args:
        right_a: per item, whether the first system is right.
        right_b: the second's, same items.

    Raises:
        SslbenchError: unequal numbers of items.
    """
    if len(right_a) != len(right_b):
        raise SslbenchError(f"McNemar's test needs the same items, got {len(right_a)} and {len(right_b)}")
    only_a = sum(a and not b for a, b in zip(right_a, right_b, strict=True))
    only_b = sum(b and not a for a, b in zip(right_a, right_b, strict=True))
    total, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(total, k) for k in range(fewer + 1)) / 2**total
    return min(1.0, 2 * tail)


def _units(errors: Array, lengths: Array, groups: Sequence[Hashable] | None) -> tuple[Array, Array]:
    """What is drawn: (errors, lengths) per item, or summed per group."""
    if len(errors) == 0 or len(errors) != len(lengths) or (groups is not None and len(groups) != len(errors)):
        raise SslbenchError("an interval needs at least one item, and as many lengths and groups as errors")
    if lengths.min() < 0 or lengths.sum() <= 0:
        raise SslbenchError("an interval needs a positive total length (are all references empty?)")
    if groups is None or len(set(groups)) == 1:
        return errors, lengths
    numbers = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    where = np.array([numbers[group] for group in groups])
    return np.bincount(where, errors).astype(float), np.bincount(where, lengths).astype(float)


def _draws(units: int, n: int, seed: int, *values: Array) -> tuple[Array, ...]:
    """Sums of each value over `units` drawn with replacement, `n` times; draws of total length 0 repeat
    the whole set (only possible when nearly all references are empty)."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // units)
    parts: list[list[Array]] = [[] for _ in values]
    for start in range(0, n, step):
        drawn = rng.integers(0, units, size=(min(step, n - start), units))
        for part, value in zip(parts, values, strict=True):
            part.append(value[drawn].sum(axis=1))
    sums = [np.concatenate(part) for part in parts]
    empty = sums[-1] <= 0
    for total, value in zip(sums, values, strict=True):
        total[empty] = value.sum()
    return tuple(sums)


def _t_test(difference: float, error: float, units: int) -> float:
    """Two-sided p of a difference with this bootstrap standard error, which is a little small for few units.

    Where all units agree there is no spread to judge by; then it is the least p that flipping the units'
    signs can give.
    """
    from scipy.special import stdtr

    if difference == 0 or units < 2:
        return 1.0
    if error <= 1e-12 * abs(difference):
        return float(2.0 ** (1 - units))
    error *= (units / (units - 1)) ** 0.5
    return float(2 * stdtr(units - 1, -abs(difference) / error))


def _small_sample_factor(units: int) -> float:
    """t quantile over normal quantile, times the bootstrap's variance bias."""
    from scipy.special import stdtrit

    if units < 2:
        return 1.0
    return float(stdtrit(units - 1, 0.975) / _Z95 * (units / (units - 1)) ** 0.5)


def _range(errors: Sequence[float], lengths: Sequence[float]) -> tuple[float, float]:
    """The smallest and largest ratio of a single item; unbounded above when a length is 0."""
    ratios = [error / length for error, length in zip(errors, lengths, strict=True) if length > 0]
    return min(ratios), (max(ratios) if len(ratios) == len(lengths) else float("inf"))
