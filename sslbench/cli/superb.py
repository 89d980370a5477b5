"""sslbench superb: probe tasks on a frozen upstream."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslbench.report.schema import Metric, Search

EXAMPLES = """examples:
  sslbench superb run --upstream fbank --system fbank --tasks pr,sid --data data/mini \\
      --out exp/superb/fbank --results results --tier smoke
  sslbench superb run --upstream zipformer --ckpt exp/zipformer --system zipformer-mini --tasks sid \\
      --data data/mini --out exp/superb/zipformer --results results --lrs 1e-2,1e-3
  sslbench superb score exp/superb/fbank

Only tier 'full' on official data may be called SUPERB. An interrupted run goes on where it was: run the
same command again. Scores are computed from the prediction files in --out.
"""


def main(argv: list[str]) -> int:
    """Run `superb run` or `superb score`."""
    args = _parser().parse_args(argv)
    return _run(args) if args.action == "run" else _score(args)


def _parser() -> argparse.ArgumentParser:
    shape: dict[str, Any] = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(
        prog="sslbench superb", description="SUPERB's tasks, frozen upstream.", **shape
    )
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="train the tasks' heads and score them", **shape)
    run.add_argument(
        "--upstream", required=True, help="a name of 'sslbench list upstreams', or any of s3prl's"
    )
    run.add_argument("--ckpt", type=Path, help="checkpoint folder; without it our upstreams are random")
    run.add_argument("--system", help="what the report calls this model (default: the upstream's name)")
    run.add_argument("--tasks", required=True, help="comma-separated, for example pr,sid; or all")
    run.add_argument("--data", type=Path, required=True, help="corpus folder of 'sslbench data prepare'")
    run.add_argument("--out", type=Path, required=True, help="experiment folder: predictions, curves, heads")
    run.add_argument("--results", type=Path, required=True, help="folder of result rows")
    run.add_argument(
        "--tier", choices=["smoke", "short", "full"], default="smoke", help="full is the protocol"
    )
    run.add_argument("--lrs", help="learning rates instead of the protocol's grid, for example 1e-2,1e-3")
    run.add_argument("--seed", type=int, default=0, help="initial weights, batch order, reduced data")
    run.add_argument("--cache_gb", type=float, default=8.0, help="limit of the features kept on disk")
    run.add_argument("--keep_cache", action="store_true", help="keep the features of finished tasks")
    run.add_argument("--device", default="cpu", help="where the upstream runs (cpu, cuda)")
    score = actions.add_parser("score", help="compute the scores again from the prediction files", **shape)
    score.add_argument("exp", type=Path, help="the --out of 'superb run'")
    return parser


def _run(args: argparse.Namespace) -> int:
    from sslbench.io import only_one
    from sslbench.probe.runner import Named, ProbeSettings, run_task, upstream_loader
    from sslbench.probe.task import load_task, probe_names
    from sslbench.report import store

    names = probe_names() if args.tasks == "all" else [name.strip() for name in args.tasks.split(",")]
    tasks = [load_task(name, args.tier) for name in dict.fromkeys(names)]
    named = Named(args.upstream, args.system or args.upstream)
    settings = ProbeSettings(
        args.data,
        args.out,
        args.results,
        args.tier,
        args.seed,
        _rates(args.lrs),
        args.cache_gb,
        args.keep_cache,
        args.device,
    )
    load = upstream_loader(args.upstream, args.ckpt)
    for task in tasks:
        with only_one(args.out / task.name):
            row = run_task(task, load, named, settings)
        print(_line(task.name, row.metrics, row.search))
        path = store.save(row, args.results)
        print(f"  wrote {path} and {args.out / task.name} in {row.cost['wall_s']:.1f} s")
    return 0


def _score(args: argparse.Namespace) -> int:
    from sslbench.probe.score import score_experiment

    for scored in score_experiment(args.exp):
        print(_line(scored.task, scored.metrics, scored.search))
        shares = " ".join(f"{share:.2f}" for share in scored.layer_shares)
        print(f"  layer weights {shares}")
    return 0


def _rates(text: str | None) -> list[float]:
    from sslbench.errors import SslbenchError

    try:
        rates = [float(word) for word in text.split(",")] if text else []
    except ValueError:
        rates = [-1.0]
    if any(not 0 < rate < 100 for rate in rates):
        raise SslbenchError(f"--lrs {text}: expected positive numbers, for example 1e-2,1e-3")
    return rates


def _line(task: str, metrics: dict[str, Metric], search: Search | None) -> str:
    words = []
    for name, metric in metrics.items():
        interval = f" [{metric.low:.2f}, {metric.high:.2f}]" if metric.low is not None else ""
        words.append(f"{name} {metric.value:.2f} {metric.unit}{interval}")
    tried = f"; lr {search.lr:g} of {', '.join(f'{lr:g}' for lr in search.lr_grid)} on dev" if search else ""
    return f"{task}: {', '.join(words)}{tried}"
