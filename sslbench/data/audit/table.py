"""The audit's report for people."""

from __future__ import annotations

from typing import Any

SHOWN = 3


def print_report(report: dict[str, Any]) -> None:
    """Print what was checked, then each finding with its first cuts."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    checked = Table(title="checked", title_justify="left")
    checked.add_column("split")
    for column in ("cuts", "hours", "speakers", "transcripts", "units"):
        checked.add_column(column, justify="right")
    for split in report["splits"]:
        figures = (split["cuts"], f"{split['hours']:.3f}", split["speakers"])
        labels = (split["with_transcript"], split["with_units"])
        checked.add_row(split["split"], *map(str, (*figures, *labels)))
    console.print(checked)
    if not report["findings"]:
        console.print("nothing found")
        return
    found = Table(title="found", title_justify="left")
    found.add_column("kind", no_wrap=True)
    found.add_column("level")
    found.add_column("count", justify="right")
    found.add_column("what, and the first cuts", overflow="fold")
    for row in report["findings"]:
        first = [f"{cut['id']} ({cut['split']}): {cut['detail']}" for cut in row["cuts"][:SHOWN]]
        found.add_row(row["kind"], row["level"], str(row["count"]), "\n".join([row["means"], *first]))
    console.print(found)
    if not report["ok"]:
        console.print("errors: mend these or leave the cuts out before training")
