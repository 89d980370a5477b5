"""Options that the ASR benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path


def options(about: str | None, examples: str, upstream: str) -> argparse.ArgumentParser:
    """A parser that knows the upstream, the data and where to write."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog=examples, formatter_class=raw)
    parser.add_argument("--upstream", default=upstream)
    parser.add_argument("--ckpt", help="its weights (default: random ones)")
    parser.add_argument("--data", type=Path, required=True, help="folder of manifests")
    parser.add_argument("--train", default="train-10min", help="split to learn from")
    parser.add_argument("--dev", default="dev-clean")
    parser.add_argument("--test", default="test-clean")
    parser.add_argument("--out", type=Path, required=True, help="experiments, and the table as JSON")
    return parser


def manifest(args: argparse.Namespace, split: str) -> str:
    """The manifest of `train`, `dev` or `test`."""
    return str(args.data / f"{getattr(args, split)}.jsonl.gz")
