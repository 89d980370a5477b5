"""The audit's report for people."""

from __future__ import annotations

from typing import Any

from sslbench.report.terminal import print_table

SHOWN = 3


def print_report(report: dict[str, Any]) -> None:
    """Print what was checked, then each finding with its first cuts."""
    lines = []
    for split in report["splits"]:
        figures = (split["cuts"], f"{split['hours']:.3f}", split["speakers"])
        labels = (split["with_transcript"], split["with_units"])
        lines.append([split["split"], *map(str, (*figures, *labels))])
    print_table("checked", ["split", "cuts", "hours", "speakers", "transcripts", "units"], lines)
    if not report["findings"]:
        print("nothing found")
        return
    lines = []
    for row in report["findings"]:
        first = [f"{cut['id']} ({cut['split']}): {cut['detail']}" for cut in row["cuts"][:SHOWN]]
        lines.append([row["kind"], row["level"], "\n".join([row["means"], *first]), str(row["count"])])
    print_table("found", ["kind", "level", "what, and the first cuts", "count"], lines, text_columns=3)
    if not report["ok"]:
        print("errors: mend these or leave the cuts out before training")
