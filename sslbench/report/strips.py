"""All scores, or all costs, of all systems in one figure: a line each, from the worst to the best here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from sslbench.report import numbers, style
from sslbench.report.plots import legend_below
from sslbench.report.schema import Metric
from sslbench.report.style import Figure
from sslbench.report.view import Column, Summary, System

MAX_NAMED = 8
"""Systems in colour; the others are faint dots."""
BAND = 0.62
"""Height of a line's band, in which each named system has a level: equal values do not hide each other."""

Ranked = list[tuple[System, Metric]]


def strips(title: str, summary: Summary, columns: Sequence[Column], log: bool = False) -> list[Figure]:
    """One figure, or none when fewer than two columns have a difference to show.

    Args:
        title: of the figure.
        summary: the systems; the first ones are named.
        columns: what becomes a line each, on a scale of its own.
        log: whether the scales are logarithmic; what is 0 is then left out, and the line says so.
    """
    measured = [(column, _shown(summary.measured(column), log)) for column in columns]
    lines = [(column, ranked) for column, ranked in measured if _differs(ranked)]
    zeros = {column for column, ranked in lines if len(ranked) < len(summary.measured(column))}
    if len(lines) < 2:
        return []
    named = [system.name for system in summary.systems][:MAX_NAMED]

    def draw(axes: Any) -> None:
        for index, name in enumerate(named):
            axes.plot([], [], linestyle="none", markersize=6.5, label=name, **style.look(index))
        if others := len(summary.systems) - len(named):
            axes.plot([], [], **_unnamed(), linestyle="none", label=f"{others} others")
        for height, (_, ranked) in enumerate(reversed(lines)):
            _line(axes, height, ranked, named, math.log if log else float)
        titles = [f"{c.title} {c.arrow}" + ("\nzero is left out" if c in zeros else "") for c, _ in lines]
        axes.set_yticks(range(len(lines)), reversed(titles))
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xlim(-0.24, 1.24)
        axes.set_xticks([0, 1], ["worst here", "best here"])
        axes.grid(visible=False, axis="y")
        legend_below(axes)

    told = "; ".join(
        f"{column.label} best {ranked[0][0].name} {numbers.metric(ranked[0][1])}, "
        f"worst {ranked[-1][0].name} {numbers.metric(ranked[-1][1])}"
        + (", zero is left out" if column in zeros else "")
        for column, ranked in lines
    )
    height = 1.0 + 0.5 * len(lines) + 0.16 * min(len(named), 6)
    return [
        style.render(
            title, f"Each line on its own{' logarithmic' if log else ''} scale: {told}.", draw, (6.4, height)
        )
    ]


def _differs(ranked: Ranked) -> bool:
    return len(ranked) > 1 and ranked[0][1].value != ranked[-1][1].value


def _shown(ranked: Ranked, log: bool) -> Ranked:
    return [(system, metric) for system, metric in ranked if metric.value > 0 or not log]


def _line(
    axes: Any,
    height: int,
    ranked: Ranked,
    named: Sequence[str],
    scale: Callable[[float], float],
) -> None:
    best, worst = ranked[0][1].value, ranked[-1][1].value
    axes.hlines(height, 0, 1, color=style.FAINT, linewidth=1.2, zorder=1)
    for x, value, side in ((-0.04, worst, "right"), (1.04, best, "left")):
        text = numbers.bare(value, ranked[0][1].unit)
        axes.text(x, height, text, ha=side, va="center", fontsize=style.PRINTED - 2)
    for system, metric in reversed(ranked):
        place = (scale(metric.value) - scale(worst)) / (scale(best) - scale(worst))
        if system.name not in named:
            axes.plot(place, height, **_unnamed(), zorder=2)
            continue
        index = named.index(system.name)
        level = height + BAND * (0.5 - (index + 0.5) / len(named))
        axes.plot(place, level, markersize=6.5, markeredgecolor="none", zorder=3, **style.look(index))


def _unnamed() -> dict[str, Any]:
    return {"marker": "o", "markersize": 3, "color": style.FRONT, "alpha": 0.5}
