"""Training step, inference, memory and use of the machine: our Base models against their peers.

Every model lives in a process of its own; cells are measured by turns, so that a slow minute of the machine
hits all of them alike. Ratios are over torchaudio's `hubert_pretrain_base` with its loss, in fp32.
How to read the result: docs/benchmarks/models.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, cast

sys.path.insert(0, str(Path(__file__).parent))

from model_bench.subjects import ICEFALL, LARGE, MATMUL, OURS, PEERS, REFERENCE, absent
from model_bench.table import markdown

EXAMPLES = """examples:
  python benchmarks/models.py                                   all models, both batches (about 20 minutes)
  python benchmarks/models.py --models zipformer_base torchaudio --batches 4x5 --rounds 2 --no_memory
  python benchmarks/models.py --models zipformer_base --modes train --families    where its step goes
  python benchmarks/models.py --icefall ~/icefall               k2SSL's own code beside ours
  python benchmarks/models.py --device cuda --batches 8x12.5 40x15 --rounds 20
"""


class Process:
    """A worker and the line protocol with it."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        words = [sys.executable, __file__, "--worker", name, "--device", options.device]
        words += ["--threads", str(options.threads)]
        words += ["--icefall", options.icefall] if options.icefall else []
        words += ["--compile"] if options.compile else []
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        self.child = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.stdin, self.stdout = cast(IO[str], self.child.stdin), cast(IO[str], self.child.stdout)
        self.error = self._read().get("error")

    def _read(self) -> dict[str, Any]:
        line = self.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"error": "the process died (out of memory?)"}
        return reply

    def ask(self, **cell: Any) -> dict[str, Any]:
        """Have one cell measured."""
        if self.error:
            return {"error": self.error}
        try:
            self.stdin.write(json.dumps(cell) + "\n")
            self.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process died (out of memory?)"}
        return self._read()

    def close(self) -> None:
        """End the process."""
        self.stdin.close()
        self.child.wait()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything that was asked for; the result is what the JSON file holds."""
    notes = {name: reason for name in options.models if (reason := absent(name))}
    names = [name for name in options.models if name not in notes]
    keys = [(do, work, dtype) for do in options.modes for work in options.batches for dtype in options.dtypes]
    cells: dict[str, dict[str, Any]] = {name: {} for name in names}
    rates: dict[str, list[float]] = {dtype: [] for dtype in options.dtypes}
    workers = {name: Process(name, options) for name in [MATMUL, *names]}
    params = {}
    try:
        for name in names:
            params[name] = workers[name].ask(do="facts").get("params")
        _warm(workers, names, keys, cells, options)
        for number in range(options.rounds):
            _say(f"round {number + 1} of {options.rounds}")
            _round(workers, names, keys, cells, rates)
        if options.families:
            _families(workers, names, cells, options)
    finally:
        for worker in workers.values():
            worker.close()
    if options.memory:
        _memory(names, keys, cells, options)
    return {
        "settings": {key: value for key, value in vars(options).items() if key not in ("worker", "icefall")},
        "machine": _machine(options),
        "matmul_flops_per_s": {dtype: statistics.median(found) for dtype, found in rates.items()},
        "params": params,
        "cells": cells,
        "notes": notes,
    }


def _warm(workers: Any, names: list[str], keys: Any, cells: Any, options: argparse.Namespace) -> None:
    for do, work, dtype in keys:
        for name in names:
            cell = cells[name][f"{do} {work} {dtype}"] = {"seconds": []}
            counted = dtype == options.dtypes[0]
            reply = workers[name].ask(do=do, workload=work, dtype=dtype, count=counted)
            if "error" in reply:
                cell["error"] = reply["error"]
                continue
            first = cells[name][f"{do} {work} {options.dtypes[0]}"]
            cell["flops"] = reply["flops"] if counted else first.get("flops")
            if options.device == "cuda":
                found = workers[name].ask(do=do, workload=work, dtype=dtype, kernels=True)
                cell["kernels"] = found.get("kernels")
        _say(f"warmed up and counted: {do} {work} {dtype}")


def _round(workers: Any, names: list[str], keys: Any, cells: Any, rates: dict[str, list[float]]) -> None:
    for do, work, dtype in keys:
        rates[dtype].append(workers[MATMUL].ask(do="matmul", dtype=dtype)["flops_per_s"])
        for name in names:
            cell = cells[name][f"{do} {work} {dtype}"]
            if "error" in cell:
                continue
            reply = workers[name].ask(do=do, workload=work, dtype=dtype)
            if "error" in reply:
                cell["error"] = reply["error"]
            else:
                cell["seconds"].append(reply["seconds"])


def _families(workers: Any, names: list[str], cells: dict[str, dict[str, Any]], options: Any) -> None:
    for work in options.batches:
        for name in names:
            cell = cells[name].get(f"train {work} {options.dtypes[0]}", {"error": "not asked for"})
            if "error" not in cell:
                asked = {"do": "train", "workload": work, "dtype": options.dtypes[0], "families": True}
                cell["families"] = workers[name].ask(**asked)


def _memory(names: list[str], keys: Any, cells: Any, options: argparse.Namespace) -> None:
    for do, work, dtype in keys:
        if do != "train":
            continue
        for name in names:
            cell = cells[name][f"{do} {work} {dtype}"]
            if "error" in cell:
                continue
            process = Process(name, options)  # fresh: an allocator keeps what it once had
            reply = process.ask(do="memory", mode=do, workload=work, dtype=dtype)
            process.close()
            cell.update(reply)
        _say(f"memory: {work} {dtype}")


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    from sslbench.provenance import collect

    stamp = collect("", "", 0).model_dump()
    del stamp["config_sha256"], stamp["data_sha256"], stamp["seed"]
    return {**stamp, "torch_threads": options.threads}


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*OURS, *LARGE, *PEERS, *ICEFALL]
    parser.add_argument("--models", nargs="+", choices=every, help=f"default: {' '.join([*PEERS, *OURS])}")
    parser.add_argument("--batches", nargs="+", default=["4x5", "2x15"], help="CLIPSxSECONDS")
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--modes", nargs="+", default=["train", "infer"], choices=["train", "infer"])
    parser.add_argument("--rounds", type=int, default=3, help="medians are over these")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, in each process")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--compile", action="store_true", help="our models through torch.compile")
    parser.add_argument("--icefall", help="a checkout of icefall: adds its two models")
    parser.add_argument("--families", action="store_true", help="where a training step's time goes as well")
    parser.add_argument("--no_memory", dest="memory", action="store_false", help="skip the fresh processes")
    parser.add_argument("--out", default="build/bench-models", help="folder of models.json and models.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if not options.models:
        options.models = [*PEERS, *(ICEFALL if options.icefall else ()), *OURS]
    if set(options.models) & set(ICEFALL) and not options.icefall:
        parser.error("icefall's models need --icefall DIR")
    return options


def main() -> int:
    """Measure, print the tables, and write them."""
    options = parse()
    if options.worker:
        from model_bench.worker import serve

        return serve(options)
    from sslbench import io

    began = time.perf_counter()
    result = measure(options)
    result["wall_s"] = round(time.perf_counter() - began, 1)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    io.write_json(out / "models.json", result)
    io.write_text(out / "models.md", text := markdown(result, REFERENCE))
    print(text)
    print(f"wrote {out}/models.json and {out}/models.md", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
