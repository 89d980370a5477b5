"""`sslbench report`: one page, RESULTS.md, JSON and CSV from result rows."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """examples:
  sslbench report results --out report
  sslbench report results --out report --runs exp/pretrain exp/asr --results_md RESULTS.md

The page (report/index.html) is one file without scripts or links to other hosts.
"""


def parser() -> argparse.ArgumentParser:
    """The verb's options."""
    options = argparse.ArgumentParser(
        prog="sslbench report",
        description="Make an offline page and tables from result rows.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("results", type=Path, metavar="RESULTS_DIR", help="folder of SYSTEM/EVALUATION.json")
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    options.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="EXP",
        help="training runs, or folders of them, for their curves",
    )
    options.add_argument("--results_md", type=Path, metavar="FILE", help="write RESULTS.md here too")
    return options


def main(argv: list[str]) -> None:
    """Build the report, print its table and where it is."""
    chosen = parser().parse_args(argv)

    from sslbench.report.build import build
    from sslbench.report.markdown import summary_cells
    from sslbench.report.terminal import print_table

    content, paths = build(chosen.results, chosen.out, chosen.runs, chosen.results_md)
    for line in content.cautions:
        print(f"caution: {line}")
    print_table("Results", *summary_cells(content.summary, bold=False))
    for line in [*content.headlines, *content.problems]:
        print(line)
    for path in paths:
        print(f"wrote {path}")
