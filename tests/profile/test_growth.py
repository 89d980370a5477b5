"""The fitted curve finds what it is made of, and attention is what grows."""

from __future__ import annotations

from functools import partial

import pytest

from sslbench.profile import growth
from sslbench.profile.workload import build


def test_the_fit_recovers_its_coefficients() -> None:
    lengths = [5, 10, 20, 40, 80, 160, 320, 600]
    curve = growth.fit(lengths, [3.0 * t + 0.01 * t * t for t in lengths])
    assert (curve.per_s, curve.per_s2) == pytest.approx((3.0, 0.01))
    assert curve.crossover_s == pytest.approx(300.0)
    assert curve.worst_error < 1e-9
    assert curve.at(100) == pytest.approx(400.0)


def test_a_part_that_is_not_there_is_none_rather_than_negative() -> None:
    straight = growth.fit([1, 2, 4], [1.0, 1.9, 3.6])
    assert straight.per_s2 == 0
    assert straight.crossover_s is None
    assert growth.fit([1, 2, 4], [1.0, 4.2, 17.0]).per_s == 0


def test_a_transformer_grows_with_the_square_of_its_length() -> None:
    found = growth.measure_growth(partial(build, "hubert_k2ssl_base", None, True), timed=False)
    assert list(found.macs_g) == list(growth.LENGTHS_S)
    assert found.macs_curve.worst_error < 0.01
    # 12 layers, two products of (T, T) by 768 at 50 Hz: 2 * 12 * 768 * 50^2 MACs per second squared
    assert found.macs_curve.per_s2 == pytest.approx(2 * 12 * 768 * 2500 / 1e9, rel=0.02)
