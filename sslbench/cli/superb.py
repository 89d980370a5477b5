"""sslbench superb: probe tasks on a frozen upstream."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench.cli import _superb_results as results
from sslbench.cli._parser import Parser
from sslbench.cli._rows import check_labels
from sslbench.tiers import TIERS

if TYPE_CHECKING:
    from torch import nn

    from sslbench.probe.runner import Named, ProbeSettings
    from sslbench.probe.task import ProbeTask
    from sslbench.report.schema import ResultRow

EXAMPLES = """examples:
  sslbench superb run --upstream fbank --system fbank --tasks pr,sid --data data/mini \\
      --out exp/superb/fbank --results results --tier smoke
  sslbench superb run --upstream zipformer --ckpt exp/zipformer --system zipformer-mini --tasks sid \\
      --data data/mini --out exp/superb/zipformer --results results --lrs 1e-2,1e-3
  sslbench superb run --upstream wavlm_base --tasks all --tier full --roots ks=/corpora/sc,er=/corpora/ie \\
      --data data/librispeech --out exp/superb/wavlm --results results --jobs 4 --device cuda:0,cuda:1
  sslbench superb run … --num_shards 10 --shard $SLURM_ARRAY_TASK_ID          # one task per job of an array
  sslbench superb check --tasks ks,sid --roots ks=/corpora/sc,sid=/corpora/VoxCeleb1
  sslbench superb run --engine s3prl --s3prl_root ../s3prl --upstream fbank --tasks sd --data corpora/sd \\
      --out exp/superb/fbank --results results          # the original runner: a row fbank.s3prl
  sslbench superb score exp/superb/fbank --results results
  sslbench superb submit exp/superb/fbank --out exp/superb/fbank/submission

Only tier 'full' on official data may be called SUPERB. An interrupted run goes on where it was: run the
same command again. Scores are computed from the prediction files in --out.
"""


def main(argv: list[str]) -> int:
    """Run `superb run`, `check`, `score` or `submit`."""
    args = _parser().parse_args(argv)
    args.words = ["superb", *argv]
    actions = {"run": _run, "check": _check, "score": results.score, "submit": results.submit}
    return actions[args.action](args)


def _parser() -> argparse.ArgumentParser:
    shape: dict[str, Any] = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = Parser(prog="sslbench superb", description="SUPERB's tasks, frozen upstream.", **shape)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="train the tasks' heads and score them", **shape)
    run.add_argument(
        "--upstream", required=True, help="a name of 'sslbench list upstreams', or any of s3prl's"
    )
    run.add_argument("--ckpt", type=Path, help="checkpoint folder; without it our upstreams are random")
    run.add_argument("--system", help="what the report calls this model (default: the upstream's name)")
    run.add_argument("--tasks", required=True, help="comma-separated, for example pr,sid; or all")
    _add_data(run)
    run.add_argument("--out", type=Path, required=True, help="experiment folder: predictions, curves, heads")
    run.add_argument("--results", type=Path, required=True, help="folder of result rows")
    run.add_argument("--tier", choices=TIERS, default="smoke", help="full is the protocol (default: smoke)")
    run.add_argument("--lrs", help="learning rates instead of the protocol's grid, for example 1e-2,1e-3")
    run.add_argument("--seed", type=int, default=0, help="initial weights, batch order, reduced data")
    run.add_argument(
        "--cache_gb",
        type=float,
        default=8.0,
        help="limit of the features kept on disk (means over time are always kept)",
    )
    run.add_argument("--keep_cache", action="store_true", help="keep the features of finished tasks")
    run.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, or several, for example cuda:0,cuda:1, with a task on each",
    )
    run.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32", help="of the upstream; labelled"
    )
    run.add_argument(
        "--cache_precision", choices=["fp32", "fp16", "bf16"], default="fp32",
        help="of frame features on disk; labelled (means over time are always fp32)",
    )  # fmt: skip
    run.add_argument(
        "--early_stop", action="store_true",
        help="stop rates whose best dev score is behind the leader's at a quarter of the steps so far",
    )  # fmt: skip
    run.add_argument(
        "--random_weights", action="store_true", help="tier full may run on random weights, as a baseline"
    )
    run.add_argument("--jobs", type=int, default=1, help="tasks at a time, each in a process of its own")
    run.add_argument("--num_shards", type=int, default=1, help="for job arrays: split the tasks in so many")
    run.add_argument("--shard", type=int, default=0, help="which of them to run, from 0")
    run.add_argument(
        "--engine", choices=["sslbench", "s3prl"], default="sslbench",
        help="s3prl: its runner, official layouts (tasks er, ic, ks, pr, sd, sid), one lr; row SYSTEM.s3prl",
    )  # fmt: skip
    run.add_argument("--s3prl_root", type=Path, help="git checkout of s3prl for its engine")
    check = actions.add_parser("check", help="say what a task's data lacks; exit 1 when it does", **shape)
    check.add_argument("--tasks", required=True, help="comma-separated, or all")
    check.add_argument(
        "--tier", choices=TIERS, default="full",
        help="full is the protocol (default: full; run's is smoke)",
    )  # fmt: skip
    _add_data(check)
    results.add_verbs(actions)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, help="corpus folder of 'sslbench data prepare', or a task's official layout"
    )
    parser.add_argument(
        "--roots", help="data of single tasks, for example ks=/corpora/sc,er=/corpora/IEMOCAP"
    )


def _run(args: argparse.Namespace) -> int:
    from sslbench.device import pick_device
    from sslbench.probe.jobs import run_tasks, shard_of

    check_labels([args.system or args.upstream])
    names = shard_of(_tasks(args.tasks, args.tier), args.num_shards, args.shard)
    roots = _all_roots(names, args)
    devices = [str(pick_device(name)) for name in args.device.split(",")]
    jobs = max(args.jobs, len(devices))  # each named device gets a task
    if jobs > 1:
        return run_tasks(names, jobs, devices, args.words)
    load = _once(args.upstream, args.ckpt)
    for number, name in enumerate(names, 1):
        print(f"task {number} of {len(names)}: {name}", file=sys.stderr, flush=True)
        _run_one(name, args, roots[name], devices[0], load)
    return 0


def _run_one(
    name: str, args: argparse.Namespace, root: Path, device: str, load: Callable[[], nn.Module]
) -> None:
    from sslbench.io import only_one
    from sslbench.probe.runner import Named, ProbeSettings, run_task
    from sslbench.probe.task import load_task
    from sslbench.report import store

    settings = ProbeSettings(
        data=root,
        exp=args.out,
        results=args.results,
        tier=args.tier,
        seed=args.seed,
        lrs=_rates(args.lrs),
        cache_gb=args.cache_gb,
        keep_cache=args.keep_cache,
        device=device,
        precision=args.precision,
        cache_precision=args.cache_precision,
        early_stop=args.early_stop,
        random_weights=args.random_weights,
    )
    task, named = load_task(name, args.tier), Named(args.upstream, args.system or args.upstream)
    with only_one(args.out / (name if args.engine == "sslbench" else f"{name}.s3prl")):
        if args.engine == "s3prl":
            row = _by_s3prl(task, named, settings, args)
        else:
            row = run_task(task, load, named, settings)
    print(results.metrics_line(name, row.metrics, row.search))
    path = store.save(row, args.results)
    print(f"  wrote {path} and {args.out / name} in {row.cost['wall_s']:.1f} s", flush=True)


def _by_s3prl(task: ProbeTask, named: Named, settings: ProbeSettings, args: argparse.Namespace) -> ResultRow:
    from sslbench.errors import SslbenchError
    from sslbench.probe.s3prl_engine import run_task_s3prl

    if args.s3prl_root is None:
        raise SslbenchError("--engine s3prl: needs --s3prl_root, a git checkout of s3prl")
    return run_task_s3prl(task, named, settings, args.s3prl_root, args.ckpt)


def _once(upstream: str, ckpt: Path | None) -> Callable[[], nn.Module]:
    """The upstream, built when first asked for and shared by all tasks (it is frozen)."""
    import functools

    from sslbench.probe.runner import upstream_loader

    return functools.cache(upstream_loader(upstream, ckpt))


def _tasks(text: str, tier: str) -> list[str]:
    from sslbench.probe.task import load_task, probe_names

    words = [_task(word) for word in text.split(",")]
    names = probe_names() if text == "all" else list(dict.fromkeys(words))
    for name in names:
        load_task(name, tier)  # an unknown one ends here, before hours of work on the others
    return names


def _task(word: str) -> str:
    """The probe task that a word means: "asr", which names fine-tuning elsewhere, is `superb_asr` here."""
    from sslbench import registry

    name = word.strip()
    return f"superb_{name}" if f"superb_{name}" in registry.tasks() else name


def _roots(args: argparse.Namespace) -> dict[str, Path]:
    from sslbench.errors import SslbenchError

    pairs = [word.partition("=") for word in args.roots.split(",")] if args.roots else []
    if any(not name or not path for name, _, path in pairs):
        raise SslbenchError(f"--roots {args.roots}: expected TASK=FOLDER,TASK=FOLDER")
    return {_task(name): Path(path) for name, _, path in pairs}


def _all_roots(names: list[str], args: argparse.Namespace) -> dict[str, Path]:
    """Every task's data folder. Raises `SslbenchError` naming all that are missing, before any work."""
    from sslbench.errors import SslbenchError, did_you_mean
    from sslbench.probe.task import probe_names

    given, found, missing = _roots(args), {}, []
    for name in given:
        if name not in (known := probe_names()):
            raise SslbenchError(f"--roots {args.roots}: no probe task {name!r}; {did_you_mean(name, known)}")
    for name in names:
        try:
            found[name] = _root(name, args.data, given)
        except SslbenchError as error:
            missing.append(str(error))
    if missing:
        raise SslbenchError("; ".join(missing))
    return found


def _root(name: str, data: Path | None, roots: dict[str, Path]) -> Path:
    from sslbench.errors import SslbenchError

    root = roots.get(name, data)
    if root is None or not root.is_dir():
        raise SslbenchError(
            f"{name}: no such data folder: {root}"
            if root
            else f"{name}: give --data, or --roots {name}=FOLDER"
        )
    return root


def _check(args: argparse.Namespace) -> int:
    from sslbench.errors import SslbenchError
    from sslbench.probe.task import load_task

    roots, status = _roots(args), 0
    for name in _tasks(args.tasks, args.tier):
        try:
            folds = load_task(name, args.tier).folds(_root(name, args.data, roots))
        except SslbenchError as error:
            print(f"missing  {error}")
            status = 1
            continue
        for fold, parts in folds.items():
            counts = ", ".join(
                f"{part} {len(some)} clips {sum(e.cut.duration for e in some) / 3600:.2f} h"
                for part, some in parts.items()
            )
            print(f"ok       {name}{' ' + fold if fold else ''}: {counts}")
    return status


def _rates(text: str | None) -> list[float]:
    from sslbench.errors import SslbenchError

    try:
        rates = [float(word) for word in text.split(",")] if text else []
    except ValueError:
        rates = [-1.0]
    if any(not 0 < rate < 100 for rate in rates):
        raise SslbenchError(f"--lrs {text}: expected positive numbers, for example 1e-2,1e-3")
    return rates
