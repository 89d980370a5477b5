"""Quality at equal cost and cost at equal quality: what a Pareto plot says, in words."""

from __future__ import annotations

from sslbench.report import numbers
from sslbench.report.schema import Metric
from sslbench.report.view import Column, Summary, System

COSTS = ("macs_g", "rtf")
"""The first that was measured is read out; the plots show both."""
MOST = 12
"""Sentences; beyond that the plots say it better."""


def readings(summary: Summary) -> list[str]:
    """One sentence per system that another beats in a score at no more cost; untrained twins are left out."""
    costs = [column for column in summary.costs if column.metric in COSTS]
    found = []
    for quality in summary.quality:
        for cost in costs[:1]:
            found += _beaten(summary, quality, cost)
    return found[:MOST]


def _beaten(summary: Summary, quality: Column, cost: Column) -> list[str]:
    both = [(s, q, c) for s, q in summary.measured(quality) if (c := s.metric(cost)) and c.value > 0]
    lines = []
    for system, score, price in both:
        if system.weights == "random":
            continue
        # `both` comes best first: the first that is no dearer has the best quality at this cost
        at_cost = next(entry for entry in both if entry[2].value <= price.value)
        if at_cost[0] is system or at_cost[1].value == score.value:
            continue
        as_good = [entry for entry in both if _no_worse(entry[1], score)]
        cheapest = min(as_good, key=lambda entry: entry[2].value)
        lines.append(_sentence(quality, cost, system, price, at_cost, cheapest))
    return lines


def _no_worse(found: Metric, than: Metric) -> bool:
    return found.value >= than.value if found.higher_is_better else found.value <= than.value


def _sentence(
    quality: Column,
    cost: Column,
    system: System,
    price: Metric,
    at_cost: tuple[System, Metric, Metric],
    cheapest: tuple[System, Metric, Metric],
) -> str:
    score = system.metric(quality)
    have = numbers.quantity(score.value if score else None, quality.unit)
    spent = numbers.quantity(price.value, price.unit)
    line = (
        f"{quality.title} at the {cost.title} of {system.name} ({spent}): "
        f"{at_cost[0].name} reaches {numbers.quantity(at_cost[1].value, quality.unit)}, {system.name} {have}"
    )
    if cheapest[0] is not system:
        share = numbers.significant(price.value / cheapest[2].value, 2)
        line += f"; {cheapest[0].name} is at least as good for {share} times less"
    return f"{line}."


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
