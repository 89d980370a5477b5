"""The timer measures what it says, and says when it cannot."""

from __future__ import annotations

import math
import time

import pytest

from sslbench.profile import timing
from sslbench.profile.timing import Timing, measure


def test_a_known_kernel_is_measured_within_two_percent() -> None:
    """Three tries: a machine that wakes a sleeper late is not the timer's fault."""
    medians = [
        measure({"sleep": lambda: time.sleep(0.1)}, repeats=7, budget_s=0.7)["sleep"].median_s
        for _ in range(3)
    ]
    assert min(medians) == pytest.approx(0.1, rel=0.02)
    assert min(medians) >= 0.1  # never less than the truth


def test_things_are_timed_by_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, budget_s=0.0)
    assert calls == ["a", "b"] * (1 + 3)


def test_spread_is_the_relative_interquartile_range_and_flags_above_three_percent() -> None:
    steady, wild = Timing([1.0, 1.01, 1.0, 0.99, 1.0], 0.0), Timing([1.0, 1.2, 1.0, 0.8, 1.1], 0.0)
    assert steady.spread == pytest.approx(0.0)
    assert not steady.noisy
    assert wild.spread == pytest.approx(0.1)
    assert wild.noisy
    assert Timing([1.0, 1.0], 0.0).noisy  # too few to know


def test_slow_things_stop_at_three_rounds_and_quick_ones_use_their_budget() -> None:
    assert len(measure({"slow": lambda: time.sleep(0.05)}, repeats=5, budget_s=0.01)["slow"].seconds) == 3
    quick = measure({"quick": lambda: time.sleep(0.005)}, repeats=5, budget_s=0.1)["quick"].seconds
    assert 10 <= len(quick) <= 50


def test_nothing_to_time_is_no_error() -> None:
    assert measure({}) == {}


def test_other_load_is_what_the_machine_did_beyond_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.5])
    monkeypatch.setattr(timing, "_busy_s", lambda: next(clock))
    timed = measure({"sleep": lambda: time.sleep(0.1)}, repeats=3, budget_s=0.0)["sleep"]
    assert timed.other_load_cores == pytest.approx(0.5 / 0.3, rel=0.1)


def test_own_work_is_not_other_load() -> None:
    before = timing._busy_s()
    if before is None:
        pytest.skip("this machine has no /proc/stat")
    end = time.process_time() + 0.3
    while time.process_time() < end:
        math.sqrt(2.0)
    after = timing._busy_s()
    assert after is not None
    assert math.isfinite(after - before)
