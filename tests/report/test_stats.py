"""Intervals cover the truth as often as they claim; tests find real differences and no others."""

from __future__ import annotations

import numpy as np
import pytest

from sslbench.errors import SslbenchError
from sslbench.report.stats import bootstrap_ratio, paired_test


def test_interval_holds_the_estimate_and_is_reproducible() -> None:
    rng = np.random.default_rng(0)
    errors, lengths = rng.integers(0, 4, 200), rng.integers(4, 12, 200)
    low, high = bootstrap_ratio(errors.tolist(), lengths.tolist())
    assert low < errors.sum() / lengths.sum() < high
    assert (low, high) == bootstrap_ratio(errors.tolist(), lengths.tolist())
    assert (low, high) != bootstrap_ratio(errors.tolist(), lengths.tolist(), seed=1)


@pytest.mark.parametrize("speakers", [4, 30])
def test_grouped_intervals_cover_the_truth(speakers: int) -> None:
    """Speakers differ in difficulty; 25 utterances each. Utterance intervals must miss too often."""
    rng = np.random.default_rng(speakers)
    grouped = single = 0
    runs = 1000
    truth = 0.3
    for run in range(runs):
        rates = np.clip(rng.normal(truth, 0.08, speakers), 0, 1)
        groups = np.repeat(np.arange(speakers), 25)
        errors = rng.binomial(8, rates[groups])
        lengths = np.full(len(groups), 8)
        low, high = bootstrap_ratio(errors.tolist(), lengths.tolist(), groups.tolist(), n=300, seed=run)
        grouped += low <= truth <= high
        low, high = bootstrap_ratio(errors.tolist(), lengths.tolist(), n=300, seed=run)
        single += low <= truth <= high
    assert 0.93 <= grouped / runs <= 0.97
    assert single / runs < 0.80  # positive control: the harder question is really harder


def test_accuracy_stays_within_0_and_1() -> None:
    low, high = bootstrap_ratio([1, 1, 1, 0], [1, 1, 1, 1], groups=["a", "a", "b", "b"])
    assert 0 <= low <= 0.75 <= high <= 1


def test_empty_references_are_allowed_but_not_only_them() -> None:
    low, high = bootstrap_ratio([2, 1, 0], [0, 5, 5])
    assert low <= 0.3 <= high
    with pytest.raises(SslbenchError, match="total length"):
        bootstrap_ratio([1, 0], [0, 0])
    with pytest.raises(SslbenchError, match="at least one item"):
        bootstrap_ratio([], [])


def test_paired_test_finds_a_small_consistent_difference() -> None:
    rng = np.random.default_rng(1)
    lengths = np.full(200, 10)
    base = rng.integers(1, 9, 200)
    better = base - (rng.random(200) < 0.3)
    found = paired_test(base.tolist(), better.tolist(), lengths.tolist())
    assert found.p_value < 0.01
    assert 0 < found.low < found.difference < found.high
    # unpaired intervals of the two overlap: the pairing is what finds it
    assert bootstrap_ratio(base, lengths)[0] < bootstrap_ratio(better, lengths)[1]


def test_paired_test_rarely_cries_wolf() -> None:
    rng = np.random.default_rng(2)
    lengths = [10] * 100
    small = 0
    for run in range(1000):
        a, b = rng.integers(0, 9, 100), rng.integers(0, 9, 100)
        small += paired_test(a.tolist(), b.tolist(), lengths, n=300, seed=run).p_value < 0.05
    assert small / 1000 <= 0.06


@pytest.mark.parametrize("speakers", [3, 8])
def test_few_speakers_do_not_fake_certainty(speakers: int) -> None:
    """Equal systems, tested at the level that Holm's correction of 15 tests starts with."""
    rng = np.random.default_rng(speakers)
    groups = np.repeat(np.arange(speakers), 25)
    runs, level, wrong = 1500, 0.05 / 15, 0
    for run in range(runs):
        rates = np.clip(rng.normal(0.3, 0.08, speakers), 0, 1)
        other = np.clip(rates + rng.normal(0, 0.03, speakers), 0, 1)
        a, b = rng.binomial(8, rates[groups]), rng.binomial(8, other[groups])
        found = paired_test(a, b, np.full(len(groups), 8), groups.tolist(), n=300, seed=run)
        wrong += found.p_value < level
    assert wrong / runs <= 2.5 * level  # a share of the draws gives some 8 times the level


def test_units_that_all_agree_are_judged_by_their_number() -> None:
    few = paired_test([1, 1, 1], [0, 0, 0], [1, 1, 1])
    many = paired_test([1] * 20, [0] * 20, [1] * 20)
    assert few.p_value == 0.25
    assert many.p_value < 1e-5
    assert paired_test([1, 0], [1, 0], [1, 1]).p_value == 1.0
