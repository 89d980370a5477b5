"""How figures look: one palette that colour-blind readers can tell apart, for light and for dark paper."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, FAINT, FRONT = "#1f2328", "#d5dae0", "#6e7781"
# Okabe and Ito (2008) without black and yellow, which vanish on dark and on light paper
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8578f", "#c98500", "#3a9bd9", "#6e6e6e")
_DARK_COLOURS = ("#4fa8e0", "#f07f3c", "#2cc295", "#e3a1c6", "#edb032", "#8fd0ff", "#b4b4b4")
_ON_DARK = {INK: "#e6edf3", FAINT: "#3a424d", FRONT: "#9aa4af"} | dict(
    zip(COLOURS, _DARK_COLOURS, strict=True)
)
PRINTED = 11
"""Points; figures are shown at most a little above their natural width."""


@dataclass(frozen=True)
class Figure:
    """One figure in both themes, as data URIs."""

    title: str
    alt: str
    light: str
    dark: str


def look(index: int) -> dict[str, Any]:
    """Colour and marker of the n-th system; pairs repeat only after 56 systems."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def render(
    title: str, alt: str, draw: Callable[[Any], None], size: tuple[float, float] = (5.4, 3.7)
) -> Figure:
    """Draw a figure for light paper; the dark one is the same drawing in the other ink.

    Args:
        title: shown above it by the page.
        alt: what it shows, for readers who cannot see it.
        draw: fills a matplotlib axes, in this module's colours.
        size: inches.
    """
    light = _svg(draw, size)
    dark = re.sub(r"#[0-9a-f]{6}\b", lambda ink: _ON_DARK.get(ink[0], ink[0]), light)
    return Figure(title, alt, _data_uri(light), _data_uri(dark))


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _svg(draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    with _settings():
        # the object interface leaves pyplot's global state, and the user's backend, alone
        from matplotlib.figure import Figure as Canvas

        figure = Canvas(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return text.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib

    settings: Any = {
        "font.size": PRINTED,
        "axes.labelsize": PRINTED,
        "xtick.labelsize": PRINTED - 1,
        "ytick.labelsize": PRINTED - 1,
        "font.family": "sans-serif",
        "svg.fonttype": "path",  # looks the same everywhere; the alt text carries the words
        "svg.hashsalt": "sslbench",  # equal results make equal files
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": FRONT,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.grid": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "lines.linewidth": 1.6,
        "legend.frameon": False,
        "text.parse_math": False,  # names may hold dollar signs
    }
    with matplotlib.rc_context(settings):
        yield
