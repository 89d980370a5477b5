"""Wall time of SUPERB's lr grids: this engine against s3prl's runner, once per learning rate.

Same upstream, corpus, heads, batch sizes, number of steps, machine and session; runs alternate task by task.
Both evaluate dev and test at the last step. Three ratios are printed: of the measured runs as a whole, of
the same without starting a process, and what both cost at the official number of steps, from the measured
seconds per step (extrapolated, and printed as such). Test metrics are compared rate by rate: which rate is
best on the few dev clips of this corpus is chance, and would hide whether both train alike.

The steps make both sides work: enough passes through the corpus that starting Python is no longer most of
our time, and still a small part of the protocol's. About an hour on two quiet cores; `--scale 0.1` does a
tenth of the steps, `--s3prl_seeds 1` leaves out the spread of s3prl's side.

    python benchmarks/superb.py --s3prl_root s3prl --out /tmp/bench
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sslbench.io import write_json, write_text

sys.path.insert(0, str(Path(__file__).resolve().parent))

STEPS = {"ks": 1200, "ic": 400, "er": 300, "sid": 400, "pr": 64}
GRID = "1e-1,1e-2,1e-3,1e-4,1e-5"


@dataclass
class Ours:
    """One run of ours: the whole grid."""

    wall_s: float
    features_s: float
    step_s: float
    """Median seconds per training step of the whole grid."""
    tests: dict[str, float]
    """Test metric by learning rate."""


def main() -> None:
    """Run the benchmark, or (`--ours`) one process of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--s3prl_root",
        type=Path,
        help="a checkout of s3prl instead of the installed one, for PR (the wheel lacks ctc/corpus)",
    )
    parser.add_argument("--out", type=Path, required=True, help="work folder: corpus, logs, result.json")
    parser.add_argument("--upstream", default="hubert_k2ssl_tiny", help="a registered name")
    parser.add_argument("--tasks", default="ks,ic,er,sid,pr")
    parser.add_argument("--scale", type=float, default=1.0, help="times the default number of steps")
    parser.add_argument("--grid", default=GRID, help="learning rates, comma-separated")
    parser.add_argument("--seeds", type=int, default=3, help="runs of ours behind the seeds' spread")
    parser.add_argument(
        "--s3prl_seeds", type=int, default=3, help="runs of s3prl, at the rate it chose, behind its spread"
    )
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out = args.out.resolve()  # s3prl's runner works in another folder
    args.lrs = [float(word) for word in args.grid.split(",")]
    if args.ours:
        print(json.dumps([asdict(_ours(args.ours, args, seed)) for seed in args.seed]))
        return
    _bench(args)


def _steps(task: str, args: argparse.Namespace) -> int:
    return max(2, round(STEPS[task] * args.scale))


def _ours(task_name: str, args: argparse.Namespace, seed: int) -> Ours:
    import torch

    from sslbench.probe.runner import Named, ProbeSettings, run_task, upstream_loader
    from sslbench.probe.task import load_task

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    task = load_task(task_name, "smoke")
    steps = _steps(task_name, args)
    full = load_task(task_name, "full").protocol
    task.protocol = replace(full, steps=steps, eval_every=steps, lr_grid=args.lrs)
    if task_name == "er":
        folds = task.folds
        task.folds = lambda root: {"fold1": folds(root)["fold1"]}  # type: ignore[method-assign]
    data = args.out / "layouts" / ("pr-manifests" if task_name == "pr" else task_name)
    exp = args.out / f"ours-{task_name}-{seed}-{time.time_ns()}"
    settings = ProbeSettings(data, exp, exp / "results", "smoke", seed)
    spent = _timed_updates()
    started = time.monotonic()
    row = run_task(task, upstream_loader(args.upstream, None), Named(args.upstream, "ours"), settings)
    wall_s = time.monotonic() - started
    return Ours(
        wall_s, row.cost["features_s"], statistics.median(spent), tests_by_rate(task, exp / task_name)
    )


def tests_by_rate(task: Any, folder: Path) -> dict[str, float]:
    """The headline on test of every learning rate of a finished run (of its only fold)."""
    from sslbench.probe.rundir import RunDir

    run = RunDir(folder)
    (fold,) = run.run()["facts"]["folds"]
    return {
        f"{lr:g}": task.metrics(run.predictions(lr, "test", fold))[task.headline].value
        for lr in run.finished(fold)
    }


def _timed_updates() -> list[float]:
    """Seconds of every training step from now on, batch fetching included."""
    from sslbench.probe.grid import FrameGrid
    from sslbench.probe.pooled import PooledGrid

    spent: list[float] = []

    def timed(update: Any) -> Any:
        def timing(*words: Any) -> Any:
            started = time.monotonic()
            losses = update(*words)
            spent.append(time.monotonic() - started)
            return losses

        return timing

    for kind in (FrameGrid, PooledGrid):
        kind.update = timed(kind.update)  # type: ignore[method-assign]
    return spent


def _child(task: str, args: argparse.Namespace, seeds: list[int]) -> tuple[float, list[Ours]]:
    command = [sys.executable, __file__, "--ours", task, "--out", str(args.out), "--upstream", args.upstream]
    command += ["--scale", str(args.scale), "--grid", args.grid, "--seed", *map(str, seeds)]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return time.monotonic() - started, [Ours(**one) for one in json.loads(done.stdout.splitlines()[-1])]


def _bench(args: argparse.Namespace) -> None:
    from superb_layouts import write_layouts
    from superb_s3prl import installed_root, run_s3prl

    _corpus(args.out)
    roots = write_layouts(args.out / "corpus" / "manifests", args.out / "corpus", args.out / "layouts")
    _phone_manifests(roots["pr"], args.out / "layouts" / "pr-manifests")
    s3prl = (args.s3prl_root or installed_root()).resolve()
    rows: list[dict[str, Any]] = []
    path = args.out / "result.json"
    if args.s3prl_root is None and "pr" in args.tasks:
        print("pr: left out, since s3prl's wheel lacks downstream/ctc/corpus; give --s3prl_root")
        args.tasks = ",".join(task for task in args.tasks.split(",") if task != "pr")
    for task in args.tasks.split(","):
        half, steps = len(args.lrs) // 2, _steps(task, args)

        def theirs_with(lrs: list[float], seed: int = 0, task: str = task, steps: int = steps) -> list[Any]:
            return [
                run_s3prl(s3prl, args.out, task, roots[task], args.upstream, lr, steps, seed) for lr in lrs
            ]

        theirs = theirs_with(args.lrs[:half])
        whole_s, (ours,) = _child(task, args, [0])  # between theirs, so that both see the same machine
        theirs += theirs_with(args.lrs[half:])
        others = _child(task, args, list(range(1, args.seeds)))[1] if args.seeds > 1 else []
        tests = {
            f"{lr:g}": {"theirs": [ran.test], "ours": [one.tests[f"{lr:g}"] for one in (ours, *others)]}
            for ran, lr in zip(theirs, args.lrs, strict=True)
        }
        chosen = _best(task, theirs, args.lrs)
        for seed in range(1, args.s3prl_seeds):
            tests[f"{chosen:g}"]["theirs"] += [ran.test for ran in theirs_with([chosen], seed)]
        rows.append(
            _row(task, args, theirs, whole_s, ours) | {"chosen_by_s3prl": chosen, "tests_by_rate": tests}
        )
        print(_line(rows[-1], len(args.lrs)), flush=True)
        write_json(path, {"upstream": args.upstream, "grid": args.lrs, "rows": rows})
        write_text(path.with_suffix(".md"), _table(rows))
    print(f"wrote {path}")


def _best(task: str, theirs: list[Any], lrs: list[float]) -> float:
    """The rate whose run is best on dev."""
    return (min if task == "pr" else max)(zip(theirs, lrs, strict=True), key=lambda pair: pair[0].dev)[1]


def _spread(tests: list[float]) -> str:
    """Mean over seeds, and their standard deviation where there are several."""
    sd = f" ± {statistics.stdev(tests):.1f}" if len(tests) > 1 else ""
    return f"{statistics.mean(tests):.1f}{sd}"


def _row(
    task: str, args: argparse.Namespace, theirs: list[Any], whole_s: float, ours: Ours
) -> dict[str, Any]:
    from sslbench.probe.task import load_task

    steps, protocol = _steps(task, args), load_task(task, "full").protocol
    their_steps_s = sum(ran.run_s for ran in theirs)
    their_s = sum(ran.wall_s for ran in theirs)
    # at the official number of steps: both without evaluation, ours with the features' pass
    full_theirs = sum(ran.step_s for ran in theirs) * protocol.steps
    full_ours = ours.features_s + ours.step_s * protocol.steps
    return {
        "task": task, "steps": steps, "theirs_s": their_s, "theirs_steps_s": their_steps_s, "ours_s": whole_s,
        "ours_task_s": ours.wall_s, "ours_features_s": ours.features_s, "ours_step_s": ours.step_s,
        "ratio_whole": their_s / whole_s, "ratio_without_start": their_steps_s / ours.wall_s,
        "official_steps": protocol.steps, "ratio_official_extrapolated": full_theirs / full_ours,
        "full_theirs_h": full_theirs / 3600, "full_ours_h": full_ours / 3600,
    }  # fmt: skip


def _line(row: dict[str, Any], lrs: int) -> str:
    measured = (
        f"{row['task']:4} {row['steps']} steps x {lrs} lr: s3prl {row['theirs_s']:.1f} s, ours "
        f"{row['ours_s']:.1f} s: {row['ratio_whole']:.1f}x whole, {row['ratio_without_start']:.1f}x without "
        "process start"
    )
    extrapolated = (
        f"at {row['official_steps']} steps (extrapolated) {row['full_theirs_h']:.1f} h against "
        f"{row['full_ours_h']:.2f} h: {row['ratio_official_extrapolated']:.0f}x"
    )
    quality = "test %, s3prl and ours: " + ", ".join(
        f"{lr}: {_spread(both['theirs'])} and {_spread(both['ours'])}"
        for lr, both in row["tests_by_rate"].items()
    )
    return f"{measured}; {extrapolated}; {quality}"


def _table(rows: list[dict[str, Any]]) -> str:
    """The result for docs/benchmarks/superb.md."""
    head = (
        "| task | steps | s3prl, ours (s) | measured, whole | measured, without start "
        "| at the official steps (extrapolated) |"
    )
    lines = [head, "|---" * 6 + "|"]
    for row in rows:
        lines.append(
            f"| {row['task']} | {row['steps']} | {row['theirs_s']:.0f}, {row['ours_s']:.1f} "
            f"| {row['ratio_whole']:.1f}x | {row['ratio_without_start']:.1f}x "
            f"| {row['ratio_official_extrapolated']:.0f}x "
            f"({row['full_theirs_h']:.1f} h, {row['full_ours_h']:.2f} h) |"
        )
    rates = list(rows[0]["tests_by_rate"])
    lines += ["", "| test %: s3prl; ours | " + " | ".join(rates) + " |", "|---" * (len(rates) + 1) + "|"]
    for row in rows:
        cells = [
            f"{_spread(both['theirs'])}; {_spread(both['ours'])}" for both in row["tests_by_rate"].values()
        ]
        lines.append(f"| {row['task']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _corpus(out: Path) -> None:
    if not (out / "corpus" / "manifests" / "corpus.json").is_file():
        command = [sys.executable, "-m", "sslbench", "data", "prepare", "mini", "--root", str(out / "corpus")]
        subprocess.run([*command, "--out", str(out / "corpus" / "manifests")], check=True)


def _phone_manifests(root: Path, out: Path) -> None:
    if not (out / "corpus.json").is_file():
        command = [sys.executable, "-m", "sslbench", "data", "prepare", "librispeech"]
        subprocess.run([*command, "--root", str(root), "--out", str(out)], check=True)
        (out / "lexicon.txt").write_text((root / "lexicon.txt").read_text())


if __name__ == "__main__":
    main()
