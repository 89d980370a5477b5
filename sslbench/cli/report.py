"""`sslbench report`: one page, RESULTS.md, JSON and CSV from result rows."""

from __future__ import annotations

import argparse
from pathlib import Path

from sslbench.cli._parser import Parser
from sslbench.errors import SslbenchError

EPILOG = """examples:
  sslbench report results --out report
  sslbench report results --out report --runs exp/pretrain exp/asr --results_md RESULTS.md

  sslbench report results --out report --runs exp --watch 30      (during a long run)

The page (report/index.html) is one file without scripts or links to other hosts.
"""


def parser() -> argparse.ArgumentParser:
    """The verb's options."""
    options = Parser(
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
    options.add_argument(
        "--watch",
        type=float,
        metavar="S",
        help="write everything again every S seconds, until Ctrl-C, and say what each system is doing",
    )
    return options


def main(argv: list[str]) -> None:
    """Build the report, print its table and where it is."""
    chosen = parser().parse_args(argv)
    if chosen.watch is not None:
        return _watch(chosen)

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


def _watch(chosen: argparse.Namespace) -> None:
    """Rebuild for as long as the user looks; rows and logs that are being written are read as they are."""
    import math
    import time

    from sslbench.report import html
    from sslbench.report.build import build
    from sslbench.report.dashboard import dashboard
    from sslbench.report.schema import ResultRow

    if not (math.isfinite(chosen.watch) and chosen.watch > 0):
        raise SslbenchError(f"report: --watch must be above 0 seconds, not {chosen.watch:g}")
    html.check_libraries()
    while True:
        rows: list[ResultRow] = []
        try:
            content, _ = build(chosen.results, chosen.out, chosen.runs, chosen.results_md)
            rows = content.rows
            said = f"{len(content.rows)} rows, {len(content.curves)} curves -> {chosen.out / 'index.html'}"
        except (SslbenchError, OSError) as error:  # before the first row there is nothing to show yet
            said = f"waiting: {error}"
        lines = dashboard(rows, chosen.runs)
        print(
            "\n".join([f"{time.strftime('%H:%M:%S')} {said}", *(f"  {line}" for line in lines)]), flush=True
        )
        try:
            time.sleep(chosen.watch)
        except KeyboardInterrupt:
            return
