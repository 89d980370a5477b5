"""`sslbench compare`: systems side by side, and whether their differences are real."""

from __future__ import annotations

import argparse
from pathlib import Path

from sslbench.cli._parser import Parser
from sslbench.errors import SslbenchError, did_you_mean
from sslbench.tiers import TIERS

EPILOG = """examples:
  sslbench compare zipformer-mini hubert-mini --results results
  sslbench compare --results results            (every system, each against the best)
  sslbench compare --results results --evaluation asr profile --tier full

The first system named is the one that the others are tested against.
"""


def parser() -> argparse.ArgumentParser:
    """The verb's options."""
    options = Parser(
        prog="sslbench compare",
        description="Result rows side by side, with paired tests where predictions exist.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("systems", nargs="*", metavar="SYSTEM", help="labels in the results (default: all)")
    options.add_argument(
        "--results", type=Path, required=True, metavar="DIR", help="folder of SYSTEM/EVALUATION.json"
    )
    options.add_argument(
        "--evaluation", nargs="+", metavar="NAME", help="these rows alone, for example asr profile"
    )
    options.add_argument("--tier", choices=TIERS, help="rows of this tier alone")
    return options


def main(argv: list[str]) -> None:
    """Print the table and the verdicts."""
    chosen = parser().parse_args(argv)

    from sslbench.report import store
    from sslbench.report.cautions import cautions
    from sslbench.report.markdown import summary_cells
    from sslbench.report.paired import Items, compare_to, mark_against_best
    from sslbench.report.readings import cost_ratios, readings
    from sslbench.report.terminal import print_table
    from sslbench.report.view import summarise

    rows = store.load_all(chosen.results)
    known = {row.system for row in rows}
    for name in chosen.systems:
        if name not in known:
            raise SslbenchError(
                f"compare: {chosen.results} has no system {name!r}; {did_you_mean(name, known)}"
            )
    rows = [
        row
        for row in rows
        if (not chosen.systems or row.system in chosen.systems)
        and (not chosen.evaluation or row.evaluation in chosen.evaluation)
        and chosen.tier in (None, row.tier)
    ]
    if not rows:
        raise SslbenchError(f"compare: {chosen.results} has no row of this evaluation and tier")
    for line in cautions(rows):
        print(f"caution: {line}")
    summary = summarise(rows)
    reference = chosen.systems[0] if chosen.systems else None
    comparison = compare_to(summary, Items(chosen.results), reference)
    mark_against_best(summary, comparison)
    title = "Side by side (≈: no test tells it from the best; ?: not tested against it)"
    print_table(title, *summary_cells(summary, bold=False))
    verdicts = [*(pair.sentence for pair in comparison.pairs), *comparison.untested]
    ratios = cost_ratios(summary, reference) if reference in {row.system for row in rows} else []
    for line in [*verdicts, *readings(summary, comparison), *ratios]:
        print(line)
