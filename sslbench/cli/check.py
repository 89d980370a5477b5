"""`sslbench check`: the upstream contract, point by point."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from typing import Any

from sslbench import registry
from sslbench.cli._parser import Parser

SMALL = 30_000_000  # parameters

EPILOG = """examples:
  sslbench check zipformer_tiny
  sslbench check zipformer --ckpt exp/upstream --json
  sslbench check hf --ckpt wavlm-base-plus         a Hugging Face folder
  sslbench check my_upstream:Expert    a class in a file here
  sslbench check fbank                 any name of s3prl, as s3prl's own code behaves
"""


def main(argv: list[str]) -> int:
    """Print the points. Returns 1 when one is breached."""
    args = _parse(argv)
    import torch
    from torch import nn

    from sslbench import check
    from sslbench.nn.foreign import ForeignUpstream
    from sslbench.nn.upstream import weights_of
    from sslbench.upstreams import load_upstream

    # experts of s3prl's convention are judged as they are; load_upstream would mend their frame counts
    known = registry.upstreams()
    ours = args.upstream in known and known[args.upstream].source == "sslbench"
    options: dict[str, Any] = {} if ours else {"raw": True}
    if args.model_config:
        options["model_config"] = args.model_config

    def build(frozen: bool) -> nn.Module:
        return load_upstream(args.upstream, ckpt=args.ckpt, frozen=frozen, **options)

    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are said below
        upstream = build(True)
        weights, _ = weights_of(upstream)
        if sum(parameter.numel() for parameter in upstream.parameters()) < SMALL:
            torch.set_num_threads(1)  # on short clips threads of small models mostly wait for each other
        points = check.check(build, every_length_alone=args.every_length)
    wall_s = round(time.monotonic() - started, 1)
    result = {**check.as_dict(args.upstream, points), "weights": weights, "wall_s": wall_s}
    if args.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        _print_table(args.upstream, weights, points, mended=isinstance(upstream, ForeignUpstream))
    if args.out and result["ok"]:
        from sslbench.io import write_json

        write_json(args.out, result)
    return 0 if result["ok"] else 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="sslbench check",
        description="Hold an upstream against the contract. Exit status 1 when a point is breached.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("upstream", help="registered name, any name of s3prl, or module:Class")
    parser.add_argument("--ckpt", help="checkpoint (folder for ours); random weights without one")
    parser.add_argument("--model_config", help="YAML of random weights, or of changes to those of --ckpt")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.add_argument("--out", help="also write the JSON to this file when every point holds")
    parser.add_argument(
        "--every_length",
        action="store_true",
        help="run each length of 1 to 3000 samples alone (minutes), not only in batches",
    )
    return parser.parse_args(argv)


def _print_table(name: str, weights: str, points: Sequence[object], mended: bool) -> None:
    from sslbench.report.terminal import print_table

    lines = []
    for point in points:
        row = vars(point)
        verdict = "ok" if row["ok"] else "BREACH"
        lines.append([row["name"], verdict, _short(row["measured"]), _short(row["limit"]), row["note"]])
    header = ["point", "", "measured", "limit", "what was measured"]
    print_table(f"{name} ({weights} weights)", header, lines, text_columns=5)
    if mended:
        print("Judged as it is; when an evaluation loads it, missing frames repeat the last one.")


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
