"""`sslbench list`: what there is to name on the command line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sslbench import registry
from sslbench.cli._parser import Parser

EXAMPLES = """examples:
  sslbench list upstreams
  sslbench list upstreams --s3prl          # with every name that s3prl knows
  sslbench list tasks --json
"""


def main(argv: list[str]) -> None:
    """List names of one kind, as a table or JSON."""
    parser = Parser(
        prog="sslbench list",
        description="What there is to name on the command line.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=("upstreams", "tasks", "corpora", "recipes"), help="what to list")
    parser.add_argument("--s3prl", action="store_true", help="add the upstreams that s3prl itself brings")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    rows = _recipes() if args.kind == "recipes" else _registered(args.kind)
    if args.s3prl and args.kind == "upstreams":
        rows += _s3prl()
    if args.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        _print_table(rows)
    else:
        print(f"no {args.kind} here (recipes come with a checkout of the repository, not with the wheel)")


def _registered(kind: str) -> list[dict[str, Any]]:
    entries = {"upstreams": registry.upstreams, "tasks": registry.tasks, "corpora": registry.corpora}[kind]()
    if kind != "upstreams":
        return [{"name": entry.name, "source": entry.source} for entry in entries]
    # without a checkpoint every name of ours builds random weights, so none is needed
    return [{"name": e.name, "family": e.family, "source": e.source, "needs_ckpt": False} for e in entries]


def _s3prl() -> list[dict[str, Any]]:
    from sslbench.integrations.s3prl.names import s3prl_names, takes_ckpt

    ours = {entry.name for entry in registry.upstreams()}
    return [
        {"name": name, "family": name.split("_")[0], "source": "s3prl", "needs_ckpt": takes_ckpt(name)}
        for name in s3prl_names()
        if name not in ours
    ]


def _recipes() -> list[dict[str, Any]]:
    egs = Path(__file__).resolve().parents[2] / "egs"
    scripts = sorted(egs.glob("*/*/run.sh"))
    return [{"name": str(s.parent.relative_to(egs)), "run": str(s.relative_to(egs.parent))} for s in scripts]


def _print_table(rows: list[dict[str, Any]]) -> None:
    from sslbench.report.terminal import print_table

    lines = [
        [("yes" if v else "no") if isinstance(v, bool) else str(v) for v in row.values()] for row in rows
    ]
    print_table("", list(rows[0]), lines, text_columns=len(rows[0]))
