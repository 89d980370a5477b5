"""The figures of the page: quality against cost, scores with intervals, curves, layer weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sslbench.report import numbers, style
from sslbench.report.curves import Curve
from sslbench.report.schema import Metric
from sslbench.report.style import Figure
from sslbench.report.view import Column, Summary

MAX_LABELS = 12
SCORES_SHOWN = 2
"""Scores that are plotted against cost."""
PARETO_COSTS = ("macs_g", "device_hours", "rtf", "peak_mem_train_bytes")
LAYERS = "layer (0 is the input of the encoder)"


@dataclass(frozen=True)
class Point:
    """One system in a plane of cost and quality."""

    name: str
    cost: float
    quality: Metric
    index: int  # of its colour and marker


def trade_offs(summary: Summary) -> list[Figure]:
    """Quality against each kind of cost that was measured, for the first scores."""
    figures = []
    costs = [column for name in PARETO_COSTS for column in summary.costs if column.metric == name]
    for quality in summary.quality[:SCORES_SHOWN]:
        for cost in costs:
            points = _points(summary, quality, cost)
            if len(points) > 1:
                figures.append(_trade_off(quality, cost, points))
    return figures


def pareto_front(points: Sequence[Point], higher_is_better: bool) -> list[Point]:
    """The points that no other beats in both, cheapest first."""
    sign = -1.0 if higher_is_better else 1.0
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, sign * p.quality.value)):
        if not front or sign * point.quality.value < sign * front[-1].quality.value:
            front.append(point)
    return front


def _points(summary: Summary, quality: Column, cost: Column) -> list[Point]:
    points = []
    for index, system in enumerate(summary.systems):
        score, price = system.metric(quality), system.metric(cost)
        if score is not None and price is not None and price.value > 0:
            points.append(Point(system.name, numbers.scaled(price), score, index))
    return points


def _trade_off(quality: Column, cost: Column, points: Sequence[Point]) -> Figure:
    front = pareto_front(points, quality.higher_is_better)

    def draw(axes: Any) -> None:
        axes.set_xscale("log")
        readable_log_ticks(axes.xaxis, [point.cost for point in points])
        # a step: between two systems, the cheaper one is what can be had
        axes.step(
            [p.cost for p in front], [p.quality.value for p in front],
            where="post", color=style.FRONT, linestyle="--", linewidth=1.2, zorder=1,
        )  # fmt: skip
        for point in points:
            low, high = _ends(point.quality)
            on_front = point in front
            axes.errorbar(
                point.cost, point.quality.value, yerr=[[low], [high]], capsize=3, markersize=8,
                linestyle="none", elinewidth=1.2, zorder=2,
                markeredgecolor=style.INK if on_front else "none",
                label=point.name if on_front or len(points) <= MAX_LABELS else None,
                **style.look(point.index),
            )  # fmt: skip
        axes.margins(x=0.1, y=0.1)
        axes.set_xlabel(f"{cost.label}, log scale")
        axes.set_ylabel(f"{quality.label} {quality.arrow}")
        legend_below(axes)

    named = ", ".join(point.name for point in front)
    alt = f"{quality.label} against {cost.label} for {len(points)} systems. On the Pareto front: {named}."
    return style.render(f"{quality.title} against {cost.title}", alt, draw)


def readable_log_ticks(axis: Any, values: Sequence[float]) -> None:
    """Plain numbers on a logarithmic axis: every decade, or 1, 2 and 5 of each where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = [value for value in values if value > 0]
    decades = math.log10(max(shown) / min(shown)) if shown else 0.0
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_below(axes: Any) -> None:
    """Names under the plot, where they cannot hide points; markers without their error bars."""
    from matplotlib.container import ErrorbarContainer

    handles, labels = axes.get_legend_handles_labels()
    handles = [handle[0] if isinstance(handle, ErrorbarContainer) else handle for handle in handles]
    axes.figure.legend(
        handles, labels, loc="outside lower center", ncols=_columns(labels), fontsize=style.PRINTED - 1,
        handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip


def _columns(labels: Sequence[str]) -> int:
    """As many legend columns as fit the width."""
    longest = max((len(label) for label in labels), default=1) + 4
    return max(1, min(len(labels), 62 // longest))


def dots(summary: Summary) -> list[Figure]:
    """One figure per score: every system with its interval, best on top."""
    figures = []
    colours = {system.name: index for index, system in enumerate(summary.systems)}
    for column in summary.quality:
        ranked = summary.measured(column)
        if not ranked:
            continue

        def draw(axes: Any, ranked: Any = ranked, column: Column = column) -> None:
            for height, (system, metric) in enumerate(reversed(ranked)):
                low, high = _ends(metric)
                axes.errorbar(
                    metric.value, height, xerr=[[low], [high]], capsize=3, markersize=7,
                    markeredgecolor="none", **style.look(colours[system.name]),
                )  # fmt: skip
            axes.set_yticks(range(len(ranked)), [system.name for system, _ in reversed(ranked)])
            axes.set_ylim(-0.6, len(ranked) - 0.4)
            axes.grid(visible=False, axis="y")
            axes.set_xlabel(f"{column.label} {column.arrow}, 95 % interval")

        values = "; ".join(f"{system.name} {numbers.metric(metric)}" for system, metric in ranked[:20])
        size = (5.4, 1.1 + 0.32 * len(ranked))
        figures.append(style.render(column.title, f"{column.label}, best first: {values}.", draw, size))
    return figures


def _ends(metric: Metric) -> tuple[float, float]:
    """Lengths of the interval's arms; zero without an interval."""
    if metric.low is None or metric.high is None:
        return 0.0, 0.0
    return max(0.0, metric.value - metric.low), max(0.0, metric.high - metric.value)


def curve_figures(curves: Sequence[Curve]) -> list[Figure]:
    """Training curves, one figure per quantity; training is a line, dev a dashed line with points."""
    figures = []
    runs = list(dict.fromkeys(curve.run for curve in curves))
    for title, label in dict.fromkeys((curve.title, curve.label) for curve in curves):
        chosen = [curve for curve in curves if curve.title == title]

        def draw(axes: Any, chosen: Any = chosen, label: str = label) -> None:
            for curve in chosen:
                drawn = style.look(runs.index(curve.run))
                if curve.dev:
                    drawn |= {"linestyle": "--", "markersize": 5}
                else:
                    drawn |= {"marker": None, "alpha": 0.85}
                axes.plot(
                    curve.steps, curve.values, label=curve.run + (" (dev)" if curve.dev else ""), **drawn
                )
            axes.set_xlabel("training step")
            axes.set_ylabel(label)
            if len(chosen) <= MAX_LABELS:
                legend_below(axes)

        last = "; ".join(f"{c.run}{' dev' if c.dev else ''} ends at {c.values[-1]:.3g}" for c in chosen[:12])
        figures.append(style.render(title, f"{title} by training step: {last}.", draw))
    return figures


def layer_weights(weights: dict[str, dict[str, list[float]]]) -> list[Figure]:
    """A heat map per evaluation: systems by layers, share of each layer in the weighted sum.

    Args:
        weights: evaluation -> system -> weight of each layer, adding up to 1.
    """
    figures = []
    for evaluation, by_system in sorted(weights.items()):
        names = sorted(by_system)
        depth = max(len(by_system[name]) for name in names)

        def draw(axes: Any, by_system: Any = by_system, names: Any = names, depth: int = depth) -> None:
            table = [by_system[n] + [float("nan")] * (depth - len(by_system[n])) for n in names]
            image = axes.imshow(table, aspect="auto", cmap="cividis", vmin=0.0)
            axes.set_yticks(range(len(names)), names)
            axes.set_xlabel(LAYERS)
            axes.grid(visible=False)
            axes.figure.colorbar(image, ax=axes, label="weight")

        tops = "; ".join(
            f"{n} most on layer {max(range(len(w)), key=w.__getitem__)}" for n, w in by_system.items()
        )
        title = f"Layer weights of {evaluation}"
        figures.append(style.render(title, f"{title}: {tops}.", draw, (5.4, 1.4 + 0.32 * len(names))))
    return figures
