"""`sslbench data`: corpora as lhotse manifests: prepare, show, audit, and shard them.

`prepare` turns a corpus into `<split>.jsonl.gz` (lhotse cuts, opened lazily everywhere) and `corpus.json`.
`audit` checks every recording of a manifest in parallel. `shar` copies a manifest with its audio into a few
large files. Wherever a manifest is asked for (`train_manifest`, `units fit`, …), a Shar folder will do.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from sslbench.cli._parser import Parser
from sslbench.errors import SslbenchError

EXAMPLES = """examples:
  sslbench data prepare mini --root data/mini --out data/manifests
  sslbench data prepare mini --preset tiny --root /tmp/tiny --out /tmp/tiny/manifests
  sslbench data prepare librispeech --root /corpora/LibriSpeech --out data/librispeech --jobs 8
  sslbench data prepare folder --root recordings --out data/mine
  sslbench data prepare librilight --root /corpora/librilight --out data/ll60k --jobs 32
  sslbench data prepare kaldi --root data/train --out data/mine
  sslbench data show data/manifests
  sslbench data audit data/manifests/train.jsonl.gz --jobs 8
  sslbench data shar exp/units/train.jsonl.gz --out data/shar/train --jobs 8
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
AUDIT_EXAMPLES = """examples:
  sslbench data audit data/manifests --jobs 8                       # all splits, and their overlap
  sslbench data audit data/train.jsonl.gz data/dev.jsonl.gz --out exp/audit.json
  sslbench data audit data/shar/train --json | jq .findings

Exit status 1 when something was found that breaks training or its evaluation ("error"); warnings (clipped,
silent, DC offset, empty transcripts, duplicates within a split …) leave it at 0.
"""
SHAR_EXAMPLES = """examples:
  sslbench data shar exp/units1/train.jsonl.gz --out data/shar/train --jobs 16    # after 'units apply'
  sslbench pretrain --config conf/zipformer.yaml --train_manifest data/shar/train

Each epoch draws the order of the shards anew and shuffles within the sampler's buffer; resuming is exact.
lhotse reads the folder too: CutSet.from_shar(in_dir="data/shar/train").
"""


def main(argv: list[str]) -> int:
    """Run `prepare`, `show`, `audit` or `shar`. Returns the exit status: 1 when an audit finds faults."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(
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
    _add_audit(verbs)
    _add_shar(verbs)
    args = parser.parse_args(argv)
    actions = {"prepare": _prepare, "show": _show, "audit": _audit, "shar": _shar}
    return actions[args.verb](args)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _add_audit(verbs: Any) -> None:
    audit = verbs.add_parser(
        "audit", help="check every recording of manifests", epilog=AUDIT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Read all audio and metadata of one or several splits and name what is wrong.",
    )  # fmt: skip
    audit.add_argument(
        "manifests", type=Path, nargs="+", metavar="MANIFEST",
        help="manifests, Shar folders, or a prepared corpus folder (all its splits); "
        "several are also compared with each other",
    )  # fmt: skip
    audit.add_argument("--jobs", type=int, default=_cores(), help="reading processes (default: all cores)")
    audit.add_argument("--json", action="store_true", help="print the whole report as JSON")
    audit.add_argument("--out", type=Path, help="also write the report as JSON to this file")


def _add_shar(verbs: Any) -> None:
    shar = verbs.add_parser(
        "shar", help="manifest and audio to a Shar folder", epilog=SHAR_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Copy a manifest and its audio into a few large files (lhotse Shar).",
    )  # fmt: skip
    shar.add_argument("manifest", type=Path, help="cuts, best already labelled with units")
    shar.add_argument("--out", type=Path, required=True, help="folder for the shards, and nothing else")
    shar.add_argument("--shard_cuts", type=int, default=1000, help="cuts per shard (default 1000)")
    shar.add_argument(
        "--seed", type=int, default=0, help="of the shuffling over the whole corpus (default 0)"
    )
    shar.add_argument("--keep_order", action="store_true", help="keep the manifest's order instead")
    shar.add_argument("--jobs", type=int, default=_cores(), help="shards at a time (default: all cores)")
    shar.add_argument(
        "--skip_limit_share", type=float, default=0.01,
        help="share of unreadable cuts above which the work ends (default 0.01)",
    )  # fmt: skip


def _prepare(args: argparse.Namespace) -> int:
    from sslbench import registry
    from sslbench.corpora import PrepareOptions

    _check_positive(args, "jobs", "limit")
    options = PrepareOptions(args.preset, args.seed, args.jobs, args.limit)
    prepare = registry.corpora()[args.corpus].load()
    facts: dict[str, Any] = prepare(args.root, args.out, options)
    _print_table(args.out, facts)
    print(f"manifests: {args.out}")
    return 0


def _check_positive(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise SslbenchError(f"--{name}: must be at least 1, not {value}")


def _show(args: argparse.Namespace) -> int:
    from sslbench.data.manifests import read_corpus

    _print_table(args.folder, read_corpus(args.folder))
    return 0


def _shar(args: argparse.Namespace) -> int:
    from sslbench.data.shar import write_shar

    _check_positive(args, "jobs", "shard_cuts")
    facts = write_shar(
        args.manifest, args.out, shard_cuts=args.shard_cuts, jobs=args.jobs,
        seed=None if args.keep_order else args.seed, limit_share=args.skip_limit_share,
    )  # fmt: skip
    print(f"{args.out}: {facts['cuts']} cuts in {facts['shards']} shards, {facts['skipped']} skipped")
    return 0


def _audit(args: argparse.Namespace) -> int:
    import json

    from sslbench import io
    from sslbench.data.audit import audit
    from sslbench.data.audit.table import print_report

    _check_positive(args, "jobs")
    report = audit(args.manifests, args.jobs)
    if args.out:
        io.write_json(args.out, report)
    if args.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print_report(report)
        if args.out:
            print(f"wrote {args.out}")
    return 0 if report["ok"] else 1


def _print_table(folder: Path, facts: dict[str, Any]) -> None:
    from sslbench.data.manifests import SKIPPED_FILE, SUFFIX, read_rows
    from sslbench.report.terminal import print_table

    lines = []
    for split, entry in facts["splits"].items():
        rows = read_rows(folder / (split + SUFFIX))
        speakers = {s.get("speaker") for row in rows for s in row.get("supervisions", [])} - {None}
        hours, digest = f"{entry['hours']:.3f}", entry["sha256"][:12]
        lines.append([split, str(entry["cuts"]), hours, str(len(speakers)), digest])
    kind = "synthetic" if facts["synthetic"] else "real"
    print_table(f"{facts['corpus']} ({kind})", ["split", "cuts", "hours", "speakers", "sha256"], lines)
    if facts["skipped"]:
        print(f"{facts['skipped']} recordings left out: {folder / SKIPPED_FILE}")
