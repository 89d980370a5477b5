"""Peak memory of inference, of a training step and of a whole update, each in a process of its own.

A fresh process, because an allocator keeps what it once had. On a CPU `VmHWM` is read rather than
`ru_maxrss`: on Linux the latter survives exec, so the child of a large process would report its parent's.
On a GPU the peak is that of PyTorch's allocator.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.profile.workload import (
    BATCH,
    Workload,
    build,
    inference_step,
    training_step,
    update_steps,
    why_no_training,
)

LIMIT_SLACK = 1.25
"""The operating system stops a child here, as a multiple of its limit: address space is not all used."""


@dataclass(frozen=True)
class Job:
    """What a child process runs."""

    mode: str
    """`inference`, `train` (forward and backward) or `update` (with AdamW)."""
    upstream: str
    ckpt: str | None
    threads: int
    device: str = "cpu"
    clips: int = BATCH.clips
    """Of the length that `BATCH` has."""
    limit_bytes: int | None = None
    """Above this an allocation may fail, which is reported as such."""


def method(device: str) -> str:
    """How peaks are measured, in words."""
    kind = "CUDA allocator's peak" if device.startswith("cuda") else "peak resident set"
    return f"{kind} of a fresh process"


def measurable(device: str) -> bool:
    """Whether peaks can be read here."""
    return device.startswith("cuda") or Path("/proc/self/status").is_file()


def peak_memory(
    name: str, ckpt: str | None, threads: int, train: bool, device: str = "cpu", timeout_s: float = 600
) -> dict[str, int]:
    """Measure an upstream in fresh processes.

    Args:
        name: of the upstream.
        ckpt: its checkpoint folder.
        threads: of torch.
        train: whether a training step is measured too.
        device: "cpu" or "cuda".
        timeout_s: limit for each process.

    Returns:
        `inference_bytes`, `train_bytes` (when asked for), each the peak of the whole process (on a GPU: of
        its tensors), and `baseline_bytes`, what it held with the weights loaded and nothing run.

    Raises:
        SslbenchError: the process failed; its last line says why.
    """
    if not measurable(device):
        return {}
    found = _child(Job("inference", name, ckpt, threads, device), timeout_s)
    result = {"baseline_bytes": found["before"], "inference_bytes": found["peak"]}
    if train:
        result["train_bytes"] = _child(Job("train", name, ckpt, threads, device), timeout_s)["peak"]
    return result


def update_peak_bytes(job: Job, timeout_s: float = 600) -> int | None:
    """The peak of a training update in a fresh process; None when memory ran out below its limit."""
    return _child(job, timeout_s).get("peak")


def _child(job: Job, timeout_s: float) -> dict[str, int]:
    command = [sys.executable, "-m", "sslbench.profile.memory", json.dumps(asdict(job))]
    # imports of numeric libraries read this one; torch's own count is set in the child
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment)
    except subprocess.TimeoutExpired:
        wayout = "use --no_memory" if job.mode != "update" else "name a smaller --memory_gib"
        problem = f"memory of {job.upstream} took more than {timeout_s:g} s"
        raise SslbenchError(f"profile: {problem}; {wayout}") from None
    if done.returncode == -signal.SIGKILL and job.limit_bytes is not None:
        return {"out_of_memory": 1}  # the kernel was quicker than the limit
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SslbenchError(f"profile: memory of {job.upstream} ({job.mode}) failed: {last}")
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
    """The child: build, run twice, print the peak as JSON, or `{"out_of_memory": 1}`."""
    job = Job(**json.loads(argv[0]))
    torch.set_num_threads(job.threads)
    upstream = build(job.upstream, job.ckpt, frozen=job.mode == "inference").to(job.device)
    if job.mode != "inference" and (reason := why_no_training(upstream)):
        raise SslbenchError(f"{job.upstream}: {reason}")
    cuda = job.device.startswith("cuda")
    before = torch.cuda.memory_allocated() if cuda else status_bytes("VmRSS")
    try:
        if job.limit_bytes is not None:
            _restrain(job.limit_bytes, cuda)
        for step in _steps(job, upstream):
            step()
    except (RuntimeError, MemoryError) as error:  # torch's out-of-memory errors on a GPU and on a CPU
        if job.limit_bytes is None or not _is_out_of_memory(error):
            raise
        print(json.dumps({"out_of_memory": 1}))
        return 0
    peak = torch.cuda.max_memory_allocated() if cuda else status_bytes("VmHWM")
    print(json.dumps({"before": before, "peak": peak}))
    return 0


def _steps(job: Job, upstream: nn.Module) -> list[Callable[[], object]]:
    """Two steps: the second meets what the first one left (gradients, optimizer states, caches)."""
    workload = Workload(job.clips, BATCH.clip_s)
    if job.mode == "update":
        return update_steps(upstream, workload)
    step = (
        inference_step(upstream, workload) if job.mode == "inference" else training_step(upstream, workload)
    )
    return [step, step]


def _restrain(limit_bytes: int, cuda: bool) -> None:
    """Let allocations far beyond the limit fail, rather than push the machine into swap."""
    if cuda:
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total))
        return
    import resource

    room = max(0, round(LIMIT_SLACK * limit_bytes) - status_bytes("VmRSS"))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (status_bytes("VmData") + room, hard))


def _is_out_of_memory(error: BaseException) -> bool:
    words = ("out of memory", "can't allocate memory", "Cannot allocate memory", "bad_alloc")
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(word in str(error) for word in words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
