"""`sslbench data`: prepare corpora as lhotse manifests, and show what was prepared."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from sslbench.errors import SslbenchError

EXAMPLES = """examples:
  sslbench data prepare mini --root data/mini --out data/manifests
  sslbench data prepare mini --preset tiny --root /tmp/tiny --out /tmp/tiny/manifests
  sslbench data prepare librispeech --root /corpora/LibriSpeech --out data/librispeech --jobs 8
  sslbench data prepare folder --root recordings --out data/mine
  sslbench data show data/manifests
"""
PREPARE_EXAMPLES = """examples:
  sslbench data prepare mini --root data/mini --out data/manifests                  # synthetic, 1.9 h
  sslbench data prepare mini --preset tiny --root /tmp/tiny --out /tmp/tiny/manifests
  sslbench data prepare librispeech --root /corpora/LibriSpeech --out data/ls --jobs 8
  sslbench data prepare mini_librispeech --root /corpora/LibriSpeech --out data/ls5
  sslbench data prepare folder --root recordings --out data/mine --limit 100

'sslbench list corpora' names every corpus. Recordings that cannot be decoded are left out and named in
OUT/skipped.jsonl. Run the same command again to finish an interrupted preparation.
"""


def main(argv: list[str]) -> None:
    """Run `prepare` or `show`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="sslbench data", description="Corpora as lhotse manifests.", epilog=EXAMPLES, formatter_class=raw
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    prepare = verbs.add_parser(
        "prepare", help="audio to manifests", epilog=PREPARE_EXAMPLES, formatter_class=raw,
        description="Write one manifest of lhotse cuts per split, and corpus.json.",
    )  # fmt: skip
    prepare.add_argument("corpus", help="a name from 'sslbench list corpora'")
    prepare.add_argument("--root", type=Path, required=True, help="where the audio is (mini: where it goes)")
    prepare.add_argument("--out", type=Path, required=True, help="folder for the manifests")
    prepare.add_argument("--preset", help="mini: tiny, mini (default) or base")
    prepare.add_argument("--seed", type=int, default=0, help="seed of what is drawn (default 0)")
    prepare.add_argument("--jobs", type=int, default=_cores(), help="files at a time (default: all cores)")
    prepare.add_argument("--limit", type=int, help="at most this many cuts per split")
    show = verbs.add_parser(
        "show", help="what was prepared", formatter_class=raw, description="Splits, cuts, hours, speakers.",
        epilog="examples:\n  sslbench data show data/manifests\n",
    )  # fmt: skip
    show.add_argument("folder", type=Path, help="a folder with corpus.json")
    args = parser.parse_args(argv)
    if args.verb == "show":
        _show(args.folder)
    else:
        _prepare(args)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare(args: argparse.Namespace) -> None:
    from sslbench import registry
    from sslbench.corpora import PrepareOptions

    for name in ("jobs", "limit"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise SslbenchError(f"--{name}: must be at least 1, not {value}")
    options = PrepareOptions(args.preset, args.seed, args.jobs, args.limit)
    prepare = registry.corpora()[args.corpus].load()
    facts: dict[str, Any] = prepare(args.root, args.out, options)
    _print_table(args.out, facts)
    print(f"manifests: {args.out}")


def _show(folder: Path) -> None:
    from sslbench.data.manifests import read_corpus

    _print_table(folder, read_corpus(folder))


def _print_table(folder: Path, facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from sslbench.data.manifests import SKIPPED_FILE, SUFFIX, read_rows

    kind = "synthetic" if facts["synthetic"] else "real"
    table = Table(title=f"{facts['corpus']} ({kind})", title_justify="left")
    table.add_column("split")
    for column in ("cuts", "hours", "speakers", "sha256"):
        table.add_column(column, justify="right")
    for split, entry in facts["splits"].items():
        rows = read_rows(folder / (split + SUFFIX))
        speakers = {s.get("speaker") for row in rows for s in row.get("supervisions", [])} - {None}
        hours, digest = f"{entry['hours']:.3f}", entry["sha256"][:12]
        table.add_row(split, str(entry["cuts"]), hours, str(len(speakers)), digest)
    Console().print(table)
    if facts["skipped"]:
        print(f"{facts['skipped']} recordings left out: {folder / SKIPPED_FILE}")
