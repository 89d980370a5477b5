"""Peak memory of inference and of a training step, each in a process of its own.

A fresh process, because an allocator keeps what it once had. `VmHWM` is read rather than `ru_maxrss`:
on Linux the latter survives exec, so the child of a large process would report its parent's peak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sslbench.errors import SslbenchError
from sslbench.profile.workload import BATCH, build, inference_step, training_step, why_no_training


def peak_memory(
    name: str, ckpt: str | None, threads: int, train: bool, timeout_s: float = 600
) -> dict[str, int]:
    """Measure an upstream in fresh processes.

    Args:
        name: of the upstream.
        ckpt: its checkpoint folder.
        threads: of torch.
        train: whether a training step is measured too.
        timeout_s: limit for each process.

    Returns:
        `inference_bytes`, `train_bytes` (when asked for), each the peak resident set of the whole process,
        and `baseline_bytes`, what the process held with the weights loaded and nothing run.

    Raises:
        SslbenchError: the process failed; its last line says why.
    """
    if not Path("/proc/self/status").is_file():
        return {}
    found = _child(name, ckpt, threads, "inference", timeout_s)
    result = {"baseline_bytes": found["before"], "inference_bytes": found["peak"]}
    if train:
        result["train_bytes"] = _child(name, ckpt, threads, "train", timeout_s)["peak"]
    return result


def _child(name: str, ckpt: str | None, threads: int, mode: str, timeout_s: float) -> dict[str, int]:
    command = [sys.executable, "-m", "sslbench.profile.memory", mode, name, ckpt or "", str(threads)]
    # imports of numeric libraries read this one; torch's own count is set in the child
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment)
    except subprocess.TimeoutExpired:
        raise SslbenchError(
            f"profile: memory of {name} took more than {timeout_s:g} s; use --no_memory"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SslbenchError(f"profile: memory of {name} ({mode}) failed: {last}")
    measured: dict[str, int] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def status_bytes(key: str) -> int:
    """A size of this process in bytes, such as `VmRSS` or its peak `VmHWM`.

    Raises:
        SslbenchError: the system does not tell.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SslbenchError(f"profile: /proc/self/status has no {key}")


def main(argv: list[str]) -> int:
    """The child: build, run twice, print the peak as JSON."""
    import torch

    mode, name, ckpt, threads = argv
    torch.set_num_threads(int(threads))
    upstream = build(name, ckpt or None, frozen=mode == "inference")
    before = status_bytes("VmRSS")
    if mode == "train" and (reason := why_no_training(upstream)):
        raise SslbenchError(f"{name}: {reason}")
    step = inference_step(upstream, BATCH) if mode == "inference" else training_step(upstream, BATCH)
    for _ in range(2):  # the second step meets what the first one left (gradients, caches)
        step()
    print(json.dumps({"before": before, "peak": status_bytes("VmHWM")}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
