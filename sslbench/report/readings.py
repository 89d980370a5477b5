"""Quality at equal cost and cost at equal quality: what a Pareto plot says, in words."""

from __future__ import annotations

from sslbench.report import numbers
from sslbench.report.paired import Comparison
from sslbench.report.schema import Metric
from sslbench.report.view import Column, Summary, System

COSTS = ("macs_g", "rtf")
"""The first that was measured is read out; the plots show both."""
MOST = 12
"""Sentences; beyond that the plots say it better."""


def readings(summary: Summary, comparison: Comparison) -> list[str]:
    """One sentence per system that another beats in a score at no more cost, or equals at less; untrained
    twins are left out.

    The figures are point estimates, so each pair carries what its test says.
    """
    costs = [column for column in summary.costs if column.metric in COSTS]
    found = []
    for quality in summary.quality:
        for cost in costs[:1]:
            found += _beaten(summary, quality, cost, comparison)
    return found[:MOST]


def _beaten(summary: Summary, quality: Column, cost: Column, comparison: Comparison) -> list[str]:
    both = [(s, q, c) for s, q in summary.measured(quality) if (c := s.metric(cost)) and c.value > 0]
    lines = []
    for entry in both:
        system, score, price = entry
        if system.weights == "random":
            continue
        # `both` comes best first: the first that is no dearer has the best quality at this cost
        at_cost = next(other for other in both if other[2].value <= price.value)
        as_good = [other for other in both if _no_worse(other[1], score)]
        cheapest = min(as_good, key=lambda other: other[2].value)
        if at_cost[1].value == score.value:  # nobody is better, but one may be as good for less
            if cheapest[2].value == price.value:
                continue
            at_cost = cheapest
        lines.append(_sentence(quality, cost, entry, at_cost, cheapest, comparison))
    return lines


def _no_worse(found: Metric, than: Metric) -> bool:
    return found.value >= than.value if found.higher_is_better else found.value <= than.value


Entry = tuple[System, Metric, Metric]
"""A system, its score and its cost."""


def _sentence(
    quality: Column, cost: Column, entry: Entry, at_cost: Entry, cheapest: Entry, comparison: Comparison
) -> str:
    system, score, price = entry
    spent = numbers.quantity(price.value, price.unit)
    reached, have = (numbers.quantity(metric.value, quality.unit) for metric in (at_cost[1], score))
    line = (
        f"{quality.title} at the {cost.title} of {system.name} ({spent}): "
        f"{at_cost[0].name} reaches {reached}, {system.name} {have}"
        f"{_doubt(quality, system, at_cost[0], comparison)}"
    )
    if cheapest[2].value < price.value:
        times = numbers.significant(price.value / cheapest[2].value, 2)
        doubt = _doubt(quality, system, cheapest[0], comparison) if cheapest[0] is not at_cost[0] else ""
        line += f"; {cheapest[0].name} scores no worse{doubt} for {times} times less"
    return f"{line}."


def _doubt(column: Column, one: System, other: System, comparison: Comparison) -> str:
    """What the pair's test takes away from the difference of the figures."""
    pair = comparison.pair(column, one.name, other.name)
    if pair is None:
        return " (not tested)"
    return "" if pair.shown else " (no difference shown)"


def cost_ratios(summary: Summary, reference: str) -> list[str]:
    """One sentence per system: each of its costs as a multiple of the reference's."""
    by_name = {system.name: system for system in summary.systems}
    lines = []
    for name in [name for name in by_name if name != reference]:
        parts = []
        for column in summary.costs:
            own, other = by_name[name].metric(column), by_name[reference].metric(column)
            if own and other and own.value > 0 and other.value > 0:
                parts.append(f"{column.title} {numbers.significant(own.value / other.value, 2)} ×")
        if parts:
            lines.append(f"Cost of {name} over that of {reference}: {', '.join(parts)}.")
    return lines
