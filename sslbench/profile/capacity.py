"""The longest batch of a training update that fits into a memory limit, found without exceeding it by much.

Memory is close to linear in the number of clips of one length, so each guess comes from a line through the
last two measurements; what is reported was itself measured. Every measurement is a fresh process that the
operating system (or CUDA's allocator) keeps from growing far beyond the limit: the machine never swaps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sslbench.errors import SslbenchError
from sslbench.profile.workload import BATCH

CLIP_S = BATCH.clip_s
MAX_GROWTH = 5
"""A guess is at most this many times the largest batch that is known to fit: lines bend."""
CLOSE_ENOUGH = 0.97
"""The search ends when a batch that fits is this close to one that does not."""
MAX_TRIALS = 12
FREE_SHARE = 0.9
"""Of free memory, what a CPU run may take: other programs grow too."""


@dataclass(frozen=True)
class Capacity:
    """What fits."""

    clips: int
    """Of `CLIP_S` each; 0 when not even one fits."""
    limit_bytes: int
    tried: dict[int, int | None]
    """Clips -> peak in bytes, None where the memory did not suffice."""

    @property
    def audio_s(self) -> float:
        """Audio per update."""
        return self.clips * CLIP_S


def longest_batch(peak_bytes: Callable[[int], int | None], limit_bytes: int) -> Capacity:
    """Find the largest number of clips whose peak is within the limit.

    Args:
        peak_bytes: measures an update of some clips; None when it ran out of memory.
        limit_bytes: the limit.

    Returns:
        The largest batch that was measured to fit, at least 97 % of the smallest that was measured not to.

    Raises:
        SslbenchError: as `peak_bytes` raises it.
    """
    tried: dict[int, int | None] = {}
    fits, too_many, clips = 0, None, 1
    while len(tried) < MAX_TRIALS:
        peak = tried[clips] = peak_bytes(clips)
        if peak is not None and peak <= limit_bytes:
            fits = clips
        else:
            too_many = clips
        if too_many is not None and (too_many - fits <= 1 or fits >= CLOSE_ENOUGH * too_many):
            break
        clips = _next(tried, fits, too_many, limit_bytes)
    return Capacity(fits, limit_bytes, tried)


def _next(tried: dict[int, int | None], fits: int, too_many: int | None, limit_bytes: int) -> int:
    """Where the line through the last measurements meets the limit, kept between what is known."""
    enough = max(fits + 1, int(fits / CLOSE_ENOUGH))  # when this is too many, the search is over
    guess = max(_guess(tried, limit_bytes), enough)
    if too_many is None:
        return min(guess, max(MAX_GROWTH * fits, enough))
    if guess > fits + 0.9 * (too_many - fits):  # the line bends: halving is safe
        guess = max((fits + too_many) // 2, min(enough, too_many - 1))
    return guess


def _guess(tried: dict[int, int | None], limit_bytes: int) -> int:
    known = sorted((clips, peak) for clips, peak in tried.items() if peak is not None)
    if len(known) < 2:
        return MAX_GROWTH
    many, high = known[-1]
    # allocators hand out memory in steps: points close together say nothing about the slope
    few, low = next((point for point in reversed(known) if point[0] < 0.9 * many), known[0])
    return many + (limit_bytes - high) * (many - few) // (high - low) if high > low else MAX_GROWTH * many


def memory_limit(device: str, memory_gib: float | None) -> int:
    """Bytes that an update may use: as asked for, or what is free.

    Raises:
        SslbenchError: more is asked for than is free.
    """
    free = _free_cuda() if device.startswith("cuda") else int(FREE_SHARE * free_memory())
    if memory_gib is None:
        return free
    wanted = round(memory_gib * 2**30)
    if wanted > free:
        problem = f"--memory_gib {memory_gib:g}, but {free / 2**30:.1f} GiB are free on {device}"
        raise SslbenchError(f"profile: {problem}; name less, or free some")
    return wanted


def free_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that new processes can have without swapping, by the kernel's estimate and a container's limit.

    Raises:
        SslbenchError: the system does not tell.
    """
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        raise SslbenchError(f"profile: {proc}/meminfo has no MemAvailable; name --memory_gib") from None
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()))
    return free


def _free_cuda() -> int:
    import torch

    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])
