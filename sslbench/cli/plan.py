"""`sslbench plan`: what a pretraining configuration will take."""

from __future__ import annotations

import argparse
import json
import sys

from sslbench.cli._parser import Parser
from sslbench.cli._rows import add_tier, check_labels

EPILOG = """examples:
  sslbench plan egs/librispeech/ssl1/conf/pretrain_zipformer_base.yaml --gpus 8 --hours 960
  sslbench plan conf/pretrain.yaml --gpus 1 --batch_s 100 --json
  sslbench plan conf/pretrain.yaml --gpus 8 --precision fp32 --max_steps 100000
  sslbench plan conf/pretrain.yaml --gpus 8 --results results --system zipformer

A few updates of the full-size model are run on noise, on this machine's GPU or else its CPU. The prediction
holds for devices as fast as that one and leaves out communication and reading of data.
"""
LEAST_BATCH_S = 1.0


def parser() -> argparse.ArgumentParser:
    """The verb's options."""
    options = Parser(
        prog="sslbench plan",
        description="Predict updates, wall time, GPU-hours and memory of a pretraining run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("config", metavar="CONF", help="as for 'sslbench pretrain'")
    options.add_argument("--gpus", "--ngpu", type=int, default=1, help="devices of the run (default 1)")
    options.add_argument("--hours", type=float, metavar="H", help="size of the corpus, for the epochs")
    options.add_argument(
        "--batch_s", type=float, help="audio per measured batch (default: the run's; 30 on a CPU)"
    )
    options.add_argument("--updates", type=int, default=3, help="measured updates (default 3)")
    options.add_argument("--max_steps", type=int, help="instead of the configuration's")
    options.add_argument(
        "--precision", choices=["fp32", "bf16", "fp16"], help="instead of the configuration's"
    )
    options.add_argument("--results", metavar="DIR", help="write the prediction to DIR/LABEL/plan.json")
    options.add_argument("--system", metavar="LABEL", help="label in the results (default: the preset)")
    add_tier(options)
    options.add_argument("--json", action="store_true", help="print JSON")
    return options


def main(argv: list[str]) -> None:
    """Measure, predict, print."""
    chosen = parser().parse_args(argv)

    from dataclasses import replace

    from sslbench.errors import SslbenchError
    from sslbench.pretrain import plan
    from sslbench.pretrain.row import plan_row
    from sslbench.report import store

    if chosen.gpus < 1 or chosen.updates < 1:
        raise SslbenchError("plan: --gpus and --updates must be at least 1")
    sizes = (chosen.batch_s, chosen.hours, chosen.max_steps)
    if any(value is not None and not 0 < value < float("inf") for value in sizes):
        raise SslbenchError("plan: --batch_s, --hours and --max_steps must be above 0")
    if chosen.batch_s is not None and chosen.batch_s < LEAST_BATCH_S:
        raise SslbenchError(f"plan: --batch_s must be at least {LEAST_BATCH_S:g}: less measures overhead")
    changes = {name: getattr(chosen, name) for name in ("max_steps", "precision") if getattr(chosen, name)}
    config = replace(plan.read_config(chosen.config), **changes)
    system = chosen.system or config.upstream
    if chosen.results:
        check_labels([system])
    measured = plan.measure(config, chosen.batch_s, chosen.updates)
    made = plan.predict(config, measured, chosen.gpus, chosen.hours)
    if chosen.results:
        row = plan_row(config, measured, made, system, chosen.tier)
        print(f"wrote {store.save(row, chosen.results)}", file=sys.stderr)
    if chosen.json:
        print(json.dumps(plan.to_json(config, measured, made), indent=2))
        return
    epochs = f", {made.epochs:.0f} epochs of {chosen.hours:g} h" if made.epochs else ""
    energy = measured.energy_method if made.kwh is None else f"{made.kwh:.0f} kWh ({measured.energy_method})"
    gib = 2**30
    print(f"{config.upstream}: {measured.params_total / 1e6:.1f} M parameters, {measured.precision}")
    print(f"measured on {measured.device}: {measured.audio_s_per_s:.1f} s of audio per second, batches of "
          f"{measured.batch_s:.0f} s, {measured.peak_mem_bytes / gib:.1f} GiB")  # fmt: skip
    print(f"{made.steps} updates on {made.gpus}: {made.audio_hours:.0f} h of audio{epochs}")
    print(f"{made.wall_hours:.1f} h, {made.gpu_hours:.0f} device-hours; energy {energy}")
    _print_published()


def _print_published() -> None:
    """What others spent, for orientation."""
    from sslbench.report.published import tables
    from sslbench.report.terminal import print_table

    table = tables()["pretraining"]
    print_table(f"Published, on other machines: {table.title}", table.header, table.lines)
