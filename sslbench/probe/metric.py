"""A metric with its interval from counts per clip, for the tasks' scores."""

from __future__ import annotations

from collections.abc import Sequence

from sslbench.report.schema import Metric
from sslbench.report.stats import bootstrap_ratio


def percent(
    name: str,
    counts: Sequence[float],
    lengths: Sequence[float],
    speakers: Sequence[str],
    higher_is_better: bool = False,
) -> dict[str, Metric]:
    """sum(counts)/sum(lengths) in percent with a bootstrap interval over speakers, under its name.

    Args:
        name: of the metric.
        counts: per clip: what is wrong, or for a score that should be high, right.
        lengths: per clip: of how much.
        speakers: per clip; drawn whole.
        higher_is_better: of the metric.
    """
    low, high = bootstrap_ratio(counts, lengths, speakers)
    value = 100 * sum(counts) / sum(lengths)
    ends = {"low": 100 * low, "high": 100 * high}
    return {name: Metric(value=value, unit="%", higher_is_better=higher_is_better, n=len(counts), **ends)}
