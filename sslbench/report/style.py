"""How figures look: one palette that colour-blind readers can tell apart, in a light and a dark theme."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Theme:
    """Ink of one colour scheme."""

    name: str
    ink: str
    faint: str
    front: str
    colours: tuple[str, ...]

    def look(self, index: int) -> dict[str, Any]:
        """Colour and marker of the n-th system; pairs repeat only after 56 systems."""
        return {"color": self.colours[index % len(self.colours)], "marker": MARKERS[index % len(MARKERS)]}


# Okabe and Ito (2008) without black and yellow, which vanish on dark and on light paper
_ON_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#B8578F", "#C98500", "#3A9BD9", "#6E6E6E")
_ON_DARK = ("#4FA8E0", "#F07F3C", "#2CC295", "#E3A1C6", "#EDB032", "#8FD0FF", "#B4B4B4")
LIGHT = Theme("light", ink="#1f2328", faint="#d5dae0", front="#6e7781", colours=_ON_LIGHT)
DARK = Theme("dark", ink="#e6edf3", faint="#3a424d", front="#9aa4af", colours=_ON_DARK)
PRINTED = 11
"""Points; figures are shown at most a little above their natural width."""


@dataclass(frozen=True)
class Figure:
    """One figure in both themes, as data URIs."""

    title: str
    alt: str
    light: str
    dark: str


def render(
    title: str, alt: str, draw: Callable[[Any, Theme], None], size: tuple[float, float] = (5.4, 3.7)
) -> Figure:
    """Draw a figure once per theme.

    Args:
        title: shown above it by the page.
        alt: what it shows, for readers who cannot see it.
        draw: fills a matplotlib axes.
        size: inches.
    """
    return Figure(title, alt, _data_uri(draw, LIGHT, size), _data_uri(draw, DARK, size))


def _data_uri(draw: Callable[[Any, Theme], None], theme: Theme, size: tuple[float, float]) -> str:
    with _themed(theme):
        # the object interface leaves pyplot's global state, and the user's backend, alone
        from matplotlib.figure import Figure as Canvas

        figure = Canvas(figsize=size, layout="constrained")
        draw(figure.add_subplot(), theme)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def _themed(theme: Theme) -> Iterator[None]:
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
        "axes.edgecolor": theme.front,
        "axes.labelcolor": theme.ink,
        "text.color": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "axes.grid": True,
        "grid.color": theme.faint,
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "lines.linewidth": 1.6,
        "legend.frameon": False,
        "text.parse_math": False,  # names may hold dollar signs
    }
    with matplotlib.rc_context(settings):
        yield
