"""The result in plain words."""

from __future__ import annotations

from sslbench.report import numbers
from sslbench.report.paired import Comparison, p_text, twins
from sslbench.report.schema import Metric
from sslbench.report.view import Column, Summary, System


def headlines(summary: Summary, comparison: Comparison) -> list[str]:
    """One sentence per score, one about cost, as far as there is something to say."""
    lines = [_score(summary, column, comparison) for column in summary.quality]
    gains = [_pretraining(summary, column, comparison) for column in summary.quality]
    return [line for line in [*lines, *gains, _cost(summary)] if line]


def _pretraining(summary: Summary, column: Column, comparison: Comparison) -> str:
    """What pretraining brought over the same architecture untrained."""
    pairs = [pair for pair in comparison.pairs if pair.column == column]
    tested = {(pair.reference, pair.system): pair for pair in [*(p.flipped for p in pairs), *pairs]}
    parts = []
    for pair in (tested[twin] for twin in twins(summary, column)[0] if twin in tested):
        verdict = "no difference shown"
        if pair.shown:
            verdict = "better" if (pair.difference > 0) == column.higher_is_better else "worse"
        gap = f"{pair.difference:+.2f} points [{pair.low:+.2f}, {pair.high:+.2f}]"
        parts.append(f"{pair.system} {verdict} ({gap}, p {p_text(pair.p_corrected)})")
    return f"Pretraining, {column.title} against the untrained twin: {'; '.join(parts)}." if parts else ""


def _score(summary: Summary, column: Column, comparison: Comparison) -> str:
    ranked = summary.measured(column)
    if not ranked:
        return ""
    best, value = ranked[0]
    row = best.rows[column.evaluation]
    where = f"{row.data.corpus} {row.data.split}"
    if len(ranked) == 1:
        return (
            f"{column.title} on {where}: {best.name} {numbers.metric(value)}; nothing to compare it with yet."
        )
    extreme = "highest" if column.higher_is_better else "lowest"
    line = f"{column.title} on {where} is {extreme} for {best.name}: {numbers.metric(value)}"
    return f"{line}; {_second(ranked[0], ranked[1], column, comparison)}."


def _second(
    best: tuple[System, Metric], next_: tuple[System, Metric], column: Column, all_: Comparison
) -> str:
    name = next_[0].name
    for pair in all_.pairs:
        if pair.column == column and {pair.reference, pair.system} == {best[0].name, name}:
            if not pair.shown:
                return f"no difference to {name} is shown (p {p_text(pair.p_corrected)})"
            behind = pair if pair.difference > 0 else pair.flipped  # an end may lie beyond zero
            how_far = f"{behind.difference:.2f} points behind [{behind.low:.2f}, {behind.high:.2f}]"
            return f"{name} is {how_far}, p {p_text(pair.p_corrected)}"
    gap = abs(best[1].value - next_[1].value)
    return f"{name} is {gap:.2f} behind, and without paired predictions nothing says whether that is real"


def _cost(summary: Summary) -> str:
    for column in summary.columns:
        ranked = [pair for pair in summary.measured(column) if pair[1].value > 0]
        if column.metric == "macs_g" and len(ranked) > 1:
            (least, low), (most, high) = ranked[0], ranked[-1]
            share = numbers.significant(high.value / low.value, 2)
            return (
                f"{least.name} needs the fewest MACs ({numbers.quantity(low.value, 'G')}), "
                f"{share} times fewer than {most.name} ({numbers.quantity(high.value, 'G')})."
            )
    return ""
