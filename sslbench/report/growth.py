"""How the cost of one clip grows with its length, as a figure."""

from __future__ import annotations

import re
from typing import Any

from sslbench.report import style
from sslbench.report.plots import MAX_LABELS, legend_below, readable_log_ticks
from sslbench.report.schema import ResultRow
from sslbench.report.style import Figure
from sslbench.report.view import Summary

_KINDS = {
    r"macs_at_(\d+)s_g": ("MACs per second of audio", "G MACs per second of audio"),
    r"wall_at_(\d+)s_s": ("Real-time factor by length", "real-time factor"),
}


def growth_figures(summary: Summary) -> list[Figure]:
    """A figure per kind of cost that some `profile` row holds by length; systems look as elsewhere."""
    figures = []
    for pattern, (title, label) in _KINDS.items():
        found = {
            system.name: (index, points)
            for index, system in enumerate(summary.systems)
            if (points := _by_length(system.rows.get("profile"), pattern))
        }
        if found:
            figures.append(_figure(title, label, found))
    return figures


def _by_length(row: ResultRow | None, pattern: str) -> dict[float, float]:
    """Seconds -> cost per second of audio."""
    found = {}
    for name, value in row.cost.items() if row else []:
        if match := re.fullmatch(pattern, name):
            length_s = float(match[1])
            found[length_s] = value / length_s
    return dict(sorted(found.items()))


def _figure(title: str, label: str, found: dict[str, tuple[int, dict[float, float]]]) -> Figure:
    named = dict(list(found.items())[:MAX_LABELS])

    def draw(axes: Any) -> None:
        axes.set_xscale("log")
        axes.set_yscale("log")
        for system, (index, points) in found.items():
            look = style.look(index) | {"label": system, "markersize": 5}
            if system not in named:
                look = {"color": style.FAINT, "zorder": 1}
            axes.plot(list(points), list(points.values()), **look)
        if others := len(found) - len(named):
            axes.plot([], [], color=style.FAINT, label=f"{others} others")
        ticks = sorted({length for _, points in found.values() for length in points})
        axes.set_xticks(ticks, [f"{length:g}" for length in ticks])
        readable_log_ticks(axes.yaxis, [value for _, points in found.values() for value in points.values()])
        axes.minorticks_off()
        axes.set_xlabel("length of the clip (s), log scale")
        axes.set_ylabel(f"{label},\nlog scale")
        legend_below(axes)

    ends = "; ".join(
        f"{system} from {points[min(points)]:.3g} at {min(points):g} s to {points[max(points)]:.3g} "
        f"at {max(points):g} s"
        for system, (_, points) in named.items()
    )
    return style.render(title, f"{label} by length: {ends}.", draw)
