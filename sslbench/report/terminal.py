"""Tables in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(
    title: str, header: Sequence[str], lines: Sequence[Sequence[str]], text_columns: int = 1
) -> None:
    """Print a table of plain text, brackets and all.

    It is as wide as its content, whatever the terminal: a long line wraps there, and a figure is never cut.

    Args:
        title: above it; none when empty.
        header: names of the columns.
        lines: their cells.
        text_columns: so many from the left are aligned to the left, the others hold numbers.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(header):
        table.add_column(Text(name), justify="left" if position < text_columns else "right", no_wrap=True)
    for line in lines:
        table.add_row(*map(Text, line))
    endless = Console(width=100_000)
    console = Console(width=max(1, endless.measure(table).maximum), highlight=False, soft_wrap=True)
    if title:
        print(title)
    sys.stdout.flush()
    console.print(table, crop=False)
