"""`sslbench export`: a training run as an upstream checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from sslbench.cli._parser import Parser
from sslbench.cli._rows import add_tier, check_labels

EPILOG = """examples:
  sslbench export exp/zipformer --out exp/zipformer/upstream
  sslbench export exp/zipformer --out early --step 2000
  sslbench export exp/zipformer --out untrained --initial     the same architecture before training
  sslbench export exp/zipformer --out up --results results --system zipformer     also stamp a row
"""


def main(argv: list[str]) -> None:
    """Run the verb."""
    parser = Parser(
        prog="sslbench export",
        description="Write a run's weights (averaged, where it kept an average) as an upstream checkpoint.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("exp", type=Path, help="folder of the run (exp_dir)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, help="checkpoint to take; default: the newest")
    which.add_argument("--initial", action="store_true", help="the weights before training")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--average", action="store_true", help="insist on averaged weights")
    weights.add_argument("--no_average", action="store_true", help="the plain weights of the step")
    parser.add_argument("--results", type=Path, help="also write a 'pretrain' row below this folder")
    parser.add_argument("--system", help="what the row calls the model; default: the preset")
    add_tier(parser)
    args = parser.parse_args(argv)
    if args.initial and args.results:
        parser.error("--results is about training; it does not go with --initial")
    if args.results and args.system:
        check_labels([args.system])
    from sslbench.pretrain.summary import export, export_initial

    if args.initial:
        made = export_initial(args.exp, args.out)
    else:
        average = True if args.average else (False if args.no_average else None)
        made = export(args.exp, args.out, args.step, average)
    print(f"wrote {args.out} ({made.family}, {made.weights}, {made.card['steps']} steps)")
    if args.results:
        from sslbench.pretrain.row import pretrain_row
        from sslbench.report.store import save

        system = args.system or str(made.card["preset"])
        print(f"wrote {save(pretrain_row(args.exp, made, system, args.tier), args.results)}")
