"""sslbench units: fit k-means, label manifests (in parts, on many machines), take in others' labels, judge.

HuBERT's first iteration clusters MFCC, its second a hidden layer of the first's model; `units apply` and
`units import` write the labels onto the cuts, where pretraining reads them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sslbench.cli._parser import Parser

EXAMPLES = """examples:
  sslbench units fit --manifest data/train.jsonl.gz --feature mfcc --clusters 100 --out exp/units1
  sslbench units fit --manifest data/train.jsonl.gz --feature hubert_k2ssl:6 --ckpt exp/hubert \\
      --clusters 500 --limit_hours 100 --out exp/units2
  sslbench units apply --units exp/units1 --manifest data/train.jsonl.gz --out exp/units1/train.jsonl.gz
  sslbench units apply --units exp/units1 --manifest data/train.jsonl.gz --out exp/units1/train.jsonl.gz \\
      --num_shards 16 --shard $SLURM_ARRAY_TASK_ID
  sslbench units merge --out exp/units1/train.jsonl.gz --num_shards 16
  sslbench units import --labels train.km --tsv train.tsv --manifest data/train.jsonl.gz \\
      --out exp/units_fairseq/train.jsonl.gz
  sslbench units report --manifest exp/units1/dev-clean.jsonl.gz --units exp/units1 --out exp/report.json
"""
DEVICE = "where the upstream runs: auto (default: a GPU where there is one), cpu, cuda or cuda:N"


def main(argv: list[str]) -> int:
    """Run `units fit`, `apply`, `merge`, `import` or `report`."""
    args = _parser().parse_args(argv)
    actions = {"fit": _fit, "apply": _apply, "merge": _merge, "import": _import, "report": _report}
    actions[args.action](args)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sslbench units",
        description="k-means units: streaming fit, labels on cuts, purity and PNMI.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    shape: dict[str, Any] = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}

    fit = actions.add_parser("fit", help="fit units on a manifest", **shape)
    fit.add_argument("--manifest", type=Path, required=True, help="cuts to learn from")
    fit.add_argument(
        "--feature",
        required=True,
        metavar="mfcc|UPSTREAM:LAYER",
        help="what is clustered; LAYER counts from 0 (the input of the first block), or is 'middle'",
    )
    fit.add_argument("--ckpt", type=Path, help="checkpoint folder of the upstream")
    fit.add_argument("--clusters", type=int, required=True, metavar="K", help="number of units")
    fit.add_argument("--out", type=Path, required=True, help="folder for units.safetensors and units.yaml")
    fit.add_argument("--limit_hours", type=float, help="learn from a random part of this size")
    fit.add_argument("--seed", type=int, default=0, help="equal seeds give equal labels, byte for byte")
    fit.add_argument(
        "--normalize", choices=["utterance", "global", "none"], default="",
        help="mean and variance of the features (default none, as HuBERT)",
    )  # fmt: skip
    fit.add_argument(
        "--random_weights", action="store_true", help="the upstream may have random weights, as a baseline"
    )
    fit.add_argument("--device", default="auto", help=DEVICE)

    _add_labelling(actions, shape)
    report = actions.add_parser("report", help="purity, PNMI and the units' distribution", **shape)
    report.add_argument(
        "--manifest", type=Path, required=True, help="labelled cuts, best with phone alignments"
    )
    report.add_argument("--units", type=Path, help="folder of 'units fit', to count empty clusters exactly")
    report.add_argument("--out", type=Path, help="also write the figures as JSON")
    return parser


def _add_labelling(actions: Any, shape: dict[str, Any]) -> None:
    apply = actions.add_parser("apply", help="label a manifest", **shape)
    apply.add_argument("--units", type=Path, required=True, help="folder of 'units fit'")
    apply.add_argument("--manifest", type=Path, required=True, help="cuts to label")
    apply.add_argument("--ckpt", type=Path, help="checkpoint folder of the upstream, as in 'units fit'")
    apply.add_argument("--out", type=Path, required=True, help="labelled manifest (.jsonl.gz)")
    apply.add_argument("--device", default="auto", help=DEVICE)
    apply.add_argument("--jobs", type=int, default=1, help="processes that share the work here (default 1)")
    apply.add_argument("--num_shards", type=int, default=1, metavar="N", help="parts that tasks share out")
    apply.add_argument("--shard", type=int, default=0, metavar="I", help="this task's part, 0 to N-1")

    merge = actions.add_parser("merge", help="join the parts of 'apply --num_shards'", **shape)
    merge.add_argument("--out", type=Path, required=True, help="as in 'units apply'")
    merge.add_argument("--num_shards", type=int, required=True, metavar="N", help="as in 'units apply'")

    imported = actions.add_parser("import", help="labels of fairseq's .km and .tsv files", **shape)
    imported.add_argument("--manifest", type=Path, required=True, help="cuts to label")
    imported.add_argument("--labels", type=Path, required=True, metavar="KM", help="one line per recording")
    imported.add_argument("--tsv", type=Path, required=True, help="the recordings of these lines")
    imported.add_argument("--out", type=Path, required=True, help="labelled manifest (.jsonl.gz)")
    imported.add_argument(
        "--label_rate_hz", type=float, default=50.0,
        help="labels per second, a multiple of 50 (default 50; fairseq's MFCC labels: 100)",
    )  # fmt: skip


def _fit(args: argparse.Namespace) -> None:
    from sslbench.data.units import FitSettings, fit_units, open_features

    settings = FitSettings(args.clusters, args.seed, args.limit_hours, args.normalize)
    features = open_features(args.feature, args.ckpt, args.device, args.random_weights)
    model = fit_units(args.manifest, features, args.out, settings)
    facts = model.facts
    print(
        f"{args.out}: {model.clusters} units of {facts['feature']} from {facts['hours']:.2f} h, "
        f"inertia {facts['inertia_per_frame']:.4g} per frame, {facts['skipped']} clips skipped, "
        f"{facts['fit_wall_s']:.1f} s"
    )


def _apply(args: argparse.Namespace) -> None:
    from sslbench.data.units import label_manifest

    counts = label_manifest(
        args.units, args.manifest, args.out, args.ckpt, args.device,
        shard=args.shard, num_shards=args.num_shards, jobs=args.jobs,
    )  # fmt: skip
    part = f" (part {args.shard} of {args.num_shards})" if args.num_shards > 1 else ""
    _print_counts(f"{args.out}{part}", counts)


def _merge(args: argparse.Namespace) -> None:
    from sslbench.data.units import merge_shards

    _print_counts(str(args.out), merge_shards(args.out, args.num_shards))


def _import(args: argparse.Namespace) -> None:
    from sslbench.data.units import import_labels

    counts = import_labels(args.manifest, args.labels, args.tsv, args.out, args.label_rate_hz)
    _print_counts(str(args.out), counts)
    print(f"labels 0 to {counts['clusters'] - 1}: model.num_units must be at least {counts['clusters']}")


def _print_counts(out: str, counts: dict[str, int]) -> None:
    print(f"{out}: {counts['cuts']} cuts, {counts['frames']} labels, {counts['skipped']} skipped")


def _report(args: argparse.Namespace) -> None:
    from sslbench.data.units import UnitModel
    from sslbench.data.units.quality import measure_manifest
    from sslbench.io import write_json

    clusters = UnitModel.load(args.units).clusters if args.units else None
    figures = measure_manifest(args.manifest, clusters)
    print(_table(figures))
    if args.out:
        write_json(args.out, figures)
        print(f"wrote {args.out}")


def _table(figures: dict[str, Any]) -> str:
    flat = {key: value for key, value in figures.items() if key not in ("histogram", "phones")}
    phones = figures["phones"] or {}
    rows = list(flat.items()) + [
        (f"aligned {k}" if k in ("cuts", "frames") else k, v) for k, v in phones.items()
    ]
    if not phones:
        rows.append(("phone purity, PNMI", "no phone alignments in this manifest"))
    top = sorted(enumerate(figures["histogram"]), key=lambda item: -item[1])[:5]
    rows.append(
        ("most frequent", ", ".join(f"{unit} ({count / figures['frames']:.1%})" for unit, count in top))
    )
    return "\n".join(
        f"  {key:24} {value:.4f}" if isinstance(value, float) else f"  {key:24} {value}"
        for key, value in rows
    )
