"""Energy by counters that count it: NVIDIA's total-energy counter, or Intel/AMD RAPL. Nothing is estimated.

RAPL: Linux `powercap` sysfs (Documentation/power/powercap). Package domains alone are added up, since core
and DRAM domains lie inside them or overlap, and psys spans all. NVML: nvmlDeviceGetTotalEnergyConsumption.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

POWERCAP = Path("/sys/class/powercap")


class Counter(Protocol):
    """Counts joules."""

    method: str

    def read_j(self) -> float:
        """Joules since some fixed moment; never falls."""


class RaplCounter:
    """The processor packages of the whole machine."""

    method = "RAPL package counters: whole processor, idle power included"

    def __init__(self, domains: list[Path]) -> None:
        self._domains = domains
        self._last_uj = [_number(domain / "energy_uj") for domain in domains]
        self._range_uj = [_number(domain / "max_energy_range_uj") for domain in domains]
        self._total_uj = 0

    def read_j(self) -> float:
        """Joules since the counter was opened; a counter that wrapped round once is unwrapped."""
        for index, domain in enumerate(self._domains):
            now = _number(domain / "energy_uj")
            step = now - self._last_uj[index]
            self._total_uj += step if step >= 0 else step + self._range_uj[index]
            self._last_uj[index] = now
        return self._total_uj / 1e6


class NvmlCounter:
    """One NVIDIA GPU, board power."""

    method = "NVML total-energy counter: whole GPU board, idle power included"

    def __init__(self, index: int) -> None:
        """Open the counter. Raises `ImportError` or an NVML error where there is none."""
        import pynvml

        pynvml.nvmlInit()
        self._read = pynvml.nvmlDeviceGetTotalEnergyConsumption
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._read(self._handle)

    def read_j(self) -> float:
        """Joules since the driver was loaded."""
        return float(self._read(self._handle)) / 1e3


def open_counter(device: str = "cpu", powercap: Path = POWERCAP) -> Counter | str:
    """The counter of a device, or why its energy cannot be measured here.

    Args:
        device: "cpu" or "cuda[:N]".
        powercap: where Linux shows RAPL.
    """
    if device.startswith("cuda"):
        try:
            return NvmlCounter(int(device.partition(":")[2] or 0))
        except Exception as error:  # NVML's errors have no common base without the library
            return f"not measurable here: NVML gives no energy ({type(error).__name__}: {error})"
    packages = [path for path in sorted(powercap.glob("intel-rapl:*")) if _is_package(path)]
    if not packages:
        return f"not measurable here: no RAPL package counter below {powercap}"
    try:
        return RaplCounter(packages)
    except PermissionError:
        return "not measurable here: RAPL counters are readable by root only"
    except (OSError, ValueError) as error:
        return f"not measurable here: RAPL counters cannot be read ({error})"


@dataclass(frozen=True)
class Energy:
    """What repeated calls of one thing took."""

    joules_per_call: float
    calls: int
    wall_s: float


def measure(run: Callable[[], object], counter: Counter, at_least_s: float = 2.0) -> Energy:
    """Joules of one call, over as many calls as fill `at_least_s`: counters tick about once a millisecond
    (RAPL) to once in 100 ms (NVML)."""
    run()
    began_s, before_j, calls = time.perf_counter(), counter.read_j(), 0
    while time.perf_counter() - began_s < at_least_s or not calls:
        run()
        calls += 1
    spent_j = counter.read_j() - before_j
    return Energy(spent_j / calls, calls, time.perf_counter() - began_s)


def _is_package(domain: Path) -> bool:
    name = domain / "name"
    return name.is_file() and name.read_text().startswith("package")


def _number(path: Path) -> int:
    return int(path.read_text())
