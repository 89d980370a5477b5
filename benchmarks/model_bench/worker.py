"""One model in one long-lived process: reads a cell per line, answers with what it measured.

A cell is `{"do", "workload", "dtype"}`; the answer is one JSON line, with `error` when the model fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model_bench.families import flops_by_family, seconds_by_family
from model_bench.subjects import MATMUL, Subject, build
from sslbench.nn import transformer
from sslbench.profile.memory import status_bytes
from sslbench.profile.operators import FORMULAS
from sslbench.profile.workload import Workload

MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
aten = torch.ops.aten


def _convolution_backward_flops(grad: Any, _x: Any, weight: Any, *rest: Any, **__: Any) -> int:
    """As often the forward's FLOPs as gradients are asked for; torch's own formula forgets the groups."""
    flops = 2
    for size in (*grad, *weight[1:]):
        flops *= int(size)
    mask = rest[-1]
    return flops * (int(mask[0]) + int(mask[1]))


STEP_FORMULAS = {**FORMULAS, aten.convolution_backward: _convolution_backward_flops}


def workload(text: str) -> Workload:
    """`4x5` is four clips of five seconds."""
    clips, seconds = text.split("x")
    return Workload(int(clips), float(seconds))


class Worker:
    """A model, and the cells that it can measure."""

    def __init__(self, options: Namespace) -> None:
        torch.set_num_threads(options.threads)
        self.device = torch.device(options.device)
        self.name = options.worker
        self.subject: Subject | None = None
        if self.name != MATMUL:
            self.subject = build(self.name, self.device, options.icefall, options.compile)

    def answer(self, cell: dict[str, Any]) -> dict[str, Any]:
        """Measure one cell."""
        if self.subject is None:
            return {"flops_per_s": self._matmul(cell["dtype"])}
        if cell["do"] == "facts":
            return {"params": sum(p.numel() for p in self.subject.model.parameters())}
        if cell["do"] == "memory":
            return self._memory(self.subject, cell)
        step = self._step(self.subject, cell["do"], workload(cell["workload"]), cell["dtype"])
        if cell.get("count"):  # the warm-up too
            return {"flops": self._counter(step).get_total_flops()}
        if cell.get("families"):
            counts = self._counter(step).get_flop_counts()["Global"]
            return {"seconds": seconds_by_family(step), "flops": flops_by_family(counts)}
        if cell.get("kernels"):
            return {"kernels": self._kernels(step)}
        step()  # gets from the system the memory that was returned after the last cell
        return {"seconds": self._time(step)}

    def _step(self, subject: Subject, do: str, work: Workload, dtype: str) -> Callable[[], object]:
        kind = self.device.type

        def autocast() -> Any:
            return torch.autocast(kind, torch.bfloat16, enabled=dtype == "bf16")

        if do == "infer":
            run = subject.infer(work)

            def infer() -> object:
                with torch.no_grad(), autocast():  # not inference mode, which FLOP counting does not survive
                    return run()

            return infer
        loss, model = subject.loss(work), subject.model

        def train() -> object:
            model.zero_grad(set_to_none=True)
            with autocast():
                value = loss()
            value.backward()
            return value

        return train

    def _time(self, step: Callable[[], object]) -> float:
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            step()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) / 1e3
        began = time.perf_counter()
        step()
        return time.perf_counter() - began

    def _counter(self, step: Callable[[], object]) -> FlopCounterMode:
        """FLOPs of a step: products and convolutions, forward and backward, nothing twice."""
        counter = FlopCounterMode(display=False, custom_mapping=STEP_FORMULAS)
        # Taken apart, attention is counted without the products that its backward computes again.
        apart = patch.object(transformer, "attention", F.scaled_dot_product_attention)
        with sdpa_kernel(SDPBackend.MATH), apart, counter:
            step()
        return counter

    def _kernels(self, step: Callable[[], object]) -> int:
        from torch.profiler import ProfilerActivity, profile

        step()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as prof:
            step()
            torch.cuda.synchronize()
        on_device = [e for e in prof.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        return sum(not e.name.startswith(("Memcpy", "Memset")) for e in on_device)

    def _memory(self, subject: Subject, cell: dict[str, Any]) -> dict[str, Any]:
        """Peak of this process over two steps, and what it held before with the weights loaded."""
        step = self._step(subject, cell["mode"], workload(cell["workload"]), cell["dtype"])
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        else:
            gc.collect()
            _return_free_memory()
            with contextlib.suppress(OSError):  # not allowed everywhere: then building the model counts too
                Path("/proc/self/clear_refs").write_text("5")
            before = status_bytes("VmRSS")
        for _ in range(2):  # the second step meets what the first one left
            step()
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else status_bytes("VmHWM")
        return {"baseline_bytes": before, "peak_bytes": peak}

    def _matmul(self, dtype: str) -> float:
        """FLOP/s of a square matrix product, the best of some."""
        size = MATMUL_SIZE[self.device.type]
        a, b = (torch.randn(size, size, device=self.device, dtype=DTYPES[dtype]) for _ in range(2))
        a @ b
        return 2 * size**3 / min(self._time(lambda: a @ b) for _ in range(5))


def _return_free_memory() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def serve(options: Namespace) -> int:
    """Answer cells until the input ends."""
    out = sys.stdout
    sys.stdout = sys.stderr  # libraries that print must not reach the answers
    try:
        worker = Worker(options)
        print(json.dumps({"ready": True}), file=out, flush=True)
    except Exception as error:
        print(json.dumps({"error": _line(error)}), file=out, flush=True)
        return 1
    for line in sys.stdin:
        try:
            reply = worker.answer(json.loads(line))
        except Exception as error:  # whatever a peer raises is its result
            reply = {"error": _line(error)}
        if worker.subject is not None:
            worker.subject.model.zero_grad(set_to_none=True)
        gc.collect()
        _return_free_memory()
        print(json.dumps(reply), file=out, flush=True)
    return 0


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
