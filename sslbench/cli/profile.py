"""`sslbench profile`: parameters, MACs, speed and memory of upstreams."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from sslbench.cli._parser import Parser
from sslbench.cli._rows import add_tier, check_labels
from sslbench.errors import SslbenchError

if TYPE_CHECKING:
    from sslbench.profile.measure import Cost, Options, Subject

EPILOG = """examples:
  sslbench profile zipformer_tiny hubert_k2ssl_tiny fbank
  sslbench profile zipformer_base --json --no_speed --no_memory
  sslbench profile zipformer_base --ckpt exp/upstream --system zipformer-mini --results results --tier short
  sslbench profile zipformer_base hubert_k2ssl_base --growth --no_memory
  sslbench profile zipformer_base hubert_k2ssl_base --longest_batch --memory_gib 8 --no_speed --no_memory
  sslbench profile --upstream zipformer --ckpt exp/a --system a --upstream fbank

MACs are summed over the 32 lengths of the SUPERB challenge (224.9 s of audio), in its four buckets.
RTF is the time of one 10 s clip over 10 s; throughput and training steps run 4 clips of 5 s.
The longest batch is the audio, in clips of 5 s, of which one update (with AdamW) stays within the memory.
"""


class _InOrder(argparse.Action):
    """Remembers options in the order given, so that several belong to the upstream before them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        namespace.events = [*namespace.events, (self.dest, values)]


def parser() -> argparse.ArgumentParser:
    """The verb's options."""
    options = Parser(
        prog="sslbench profile",
        description="Measure what upstreams cost; several are timed by turns in one run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("upstreams", nargs="*", metavar="UPSTREAM", help="registered or s3prl name")
    options.set_defaults(events=[])
    options.add_argument("--upstream", action=_InOrder, metavar="NAME",
                         help="as UPSTREAM; the --ckpt and --system after it are its own")  # fmt: skip
    options.add_argument("--ckpt", action=_InOrder, metavar="DIR",
                         help="checkpoint folder; one for each UPSTREAM ('-' for none)")  # fmt: skip
    options.add_argument("--system", action=_InOrder, metavar="LABEL",
                         help="label in the results, likewise (default: the upstream's name)")  # fmt: skip
    options.add_argument("--results", metavar="DIR", help="write a row to DIR/SYSTEM/profile.json")
    add_tier(options)
    options.add_argument("--seed", type=int, default=0, help="of the row's stamp")
    options.add_argument("--repeats", type=int, default=5, help="rounds of each timing (default 5)")
    options.add_argument("--budget_s", type=float, default=1.5, help="seconds per timing (default 1.5)")
    options.add_argument("--threads", type=int, help="torch threads (default: as torch has them)")
    options.add_argument("--no_speed", action="store_true", help="do not time anything")
    options.add_argument("--no_memory", action="store_true", help="do not measure peak memory")
    options.add_argument("--growth", action="store_true", help="cost of clips from 5 s to 10 min")
    options.add_argument(
        "--longest_batch", action="store_true", help="find the longest training batch that fits into memory"
    )
    options.add_argument(
        "--memory_gib", type=float, metavar="G", help="memory for --longest_batch (default: what is free)"
    )
    options.add_argument(
        "--device", default="cpu", help="cpu (default: as in the published rows), cuda or auto"
    )
    options.add_argument("--json", action="store_true", help="print JSON")
    return options


def main(argv: list[str]) -> int:
    """Profile, print, and write rows. Returns 1 when an operator could not be counted."""
    chosen = parser().parse_args(argv)
    subjects = _subjects(chosen.upstreams, chosen.events)
    if chosen.results:
        check_labels([subject.system for subject in subjects])
    if chosen.memory_gib is not None and not (chosen.longest_batch and chosen.memory_gib > 0):
        raise SslbenchError("profile: --memory_gib must be above 0, and belongs to --longest_batch")
    if not 0 < chosen.budget_s < float("inf"):
        raise SslbenchError(f"profile: --budget_s must be above 0 seconds, not {chosen.budget_s:g}")
    if chosen.repeats < 1 or (chosen.threads is not None and chosen.threads < 1):
        raise SslbenchError("profile: --repeats and --threads must be at least 1")

    import torch

    from sslbench.device import pick_device
    from sslbench.profile.measure import Options, profile
    from sslbench.profile.row import to_json, to_row
    from sslbench.report import store

    options = Options(
        repeats=chosen.repeats,
        budget_s=chosen.budget_s,
        speed=not chosen.no_speed,
        memory=not chosen.no_memory,
        growth=chosen.growth,
        longest_batch=chosen.longest_batch,
        memory_gib=chosen.memory_gib,
        threads=chosen.threads or torch.get_num_threads(),
        device=str(pick_device(chosen.device)),
    )
    costs = profile(subjects, options, say=lambda line: print(line, file=sys.stderr, flush=True))
    if chosen.json:
        print(json.dumps([to_json(cost, options) for cost in costs], indent=2, allow_nan=False))
    else:
        _print_table(costs, options)
    for cost in costs if chosen.results else []:
        print(
            f"wrote {store.save(to_row(cost, options, chosen.tier, chosen.seed), chosen.results)}",
            file=sys.stderr,
        )
    return 1 if any(cost.macs.unlisted for cost in costs) else 0


def _subjects(upstreams: list[str], events: list[tuple[str, str]]) -> list[Subject]:
    """What to measure. Raises `SslbenchError` when labels or checkpoints do not fit the upstreams."""
    from sslbench.profile.measure import Subject

    found = _listed(upstreams, events) if upstreams else _grouped(events)
    if not found:
        raise SslbenchError("profile: name at least one upstream; 'sslbench list upstreams' shows them")
    subjects = []
    for fields in found:
        ckpt = fields.get("ckpt", "-")
        name = fields["upstream"]
        subjects.append(Subject(name, None if ckpt in ("", "-") else ckpt, fields.get("system", name)))
    if len({subject.system for subject in subjects}) < len(subjects):
        raise SslbenchError("profile: two systems share a label; tell them apart with --system")
    return subjects


def _listed(upstreams: list[str], events: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Positional names; each option comes never or once per name, in their order."""
    found: list[dict[str, str]] = [{"upstream": name} for name in upstreams]
    for flag in ("upstream", "ckpt", "system"):
        values = [value for key, value in events if key == flag]
        if values and (flag == "upstream" or len(values) != len(upstreams)):
            problem = f"{len(upstreams)} upstreams but {len(values)} --{flag}"
            raise SslbenchError(f"profile: {problem}; give one for each")
        for fields, value in zip(found, values, strict=False):
            fields[flag] = value
    return found


def _grouped(events: list[tuple[str, str]]) -> list[dict[str, str]]:
    """`--upstream A --ckpt X --upstream B …`: options belong to the upstream before them."""
    found: list[dict[str, str]] = []
    for key, value in events:
        if key == "upstream":
            found.append({})
        elif not found:
            raise SslbenchError(f"profile: --{key} {value} comes before any --upstream")
        found[-1][key] = value
    return found


def _print_table(costs: list[Cost], options: Options) -> None:
    from sslbench.profile.row import to_json
    from sslbench.report.numbers import quantity
    from sslbench.report.terminal import print_table

    header = ["system", "params", "trainable", "MACs", "short", "medium", "long", "longer",
              "RTF", "infer s/s", "train s/s", "infer mem", "train mem", "longest batch"]  # fmt: skip
    lines = []
    figures = [to_json(cost, options) for cost in costs]
    for found in figures:
        lines.append(
            [found["system"]]
            + [quantity(found[key], "parameters") for key in ("params_total", "params_trainable")]
            + [quantity(value, "G") for value in (found["macs_g"], *found["macs_buckets_g"].values())]
            + [quantity(found[key], "s/s") for key in ("rtf", "audio_s_per_s", "train_audio_s_per_s")]
            + [quantity(found[f"peak_mem_{key}_bytes"], "bytes") for key in ("inference", "train")]
            + [quantity(found["longest_batch_audio_s"], "s")]
        )
    print_table(f"Cost ({options.threads} torch threads)", header, lines)
    print("energy: " + "; ".join(sorted({_energy_line(cost) for cost in costs})))
    for method in sorted({found["longest_batch_method"] for found in figures} - {None}):
        print(f"longest batch: {method}")
    for cost in costs:
        for flag in cost.flags:
            print(f"note: {cost.subject.system}: {flag}")


def _energy_line(cost: Cost) -> str:
    if not cost.energy_j_per_audio_s:
        return cost.energy_method
    figures = ", ".join(f"{name} {j:.3g} J" for name, j in cost.energy_j_per_audio_s.items())
    return f"{cost.subject.system} {figures} per second of audio ({cost.energy_method})"
