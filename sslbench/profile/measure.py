"""Everything about the cost of some upstreams, measured side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.nn.upstream import weights_of
from sslbench.profile import capacity, energy, memory, timing
from sslbench.profile.capacity import Capacity
from sslbench.profile.growth import Curve, Growth, measure_growth
from sslbench.profile.macs import Macs, count_macs
from sslbench.profile.timing import Timing
from sslbench.profile.workload import BATCH, SINGLE, build, inference_step, training_step, why_no_training


@dataclass(frozen=True)
class Subject:
    """One upstream to profile."""

    upstream: str
    ckpt: str | None
    system: str


@dataclass
class Options:
    """What to measure and for how long."""

    repeats: int = 5
    """Rounds of each timing, when the budget allows."""
    budget_s: float = 2.0
    """Wall seconds that each timing of each upstream may take."""
    speed: bool = True
    """Whether to time inference and training steps."""
    memory: bool = True
    """Whether to measure peak memory."""
    growth: bool = False
    """Whether to count, and time, clips from 5 s to 10 min."""
    longest_batch: bool = False
    """Whether to find the longest batch of a training update that fits into memory."""
    memory_gib: float | None = None
    """For `longest_batch`; None takes what is free when the search begins."""
    threads: int = 1
    """Torch threads."""
    device: str = "cpu"
    """Where speed, memory and energy are measured: "cpu" or "cuda". MACs are counted without any."""


@dataclass
class Cost:
    """The cost of one upstream."""

    subject: Subject
    params_total: int
    params_trainable: int
    macs: Macs
    weights: str
    weights_sha256: str | None
    timings: dict[str, Timing] = field(default_factory=dict)
    """`single`, `batch` and, where there is a pretraining loss, `train`."""
    memory_bytes: dict[str, int] = field(default_factory=dict)
    """As `peak_memory` returns it."""
    energy_j_per_audio_s: dict[str, float] = field(default_factory=dict)
    """`inference` and `train`, where a counter can be read."""
    energy_method: str = "not measured"
    """Which counter, or why none."""
    growth: Growth | None = None
    """Cost by length, when asked for."""
    capacity: Capacity | None = None
    """The longest batch that fits, when asked for."""
    notes: list[str] = field(default_factory=list)
    """What is absent or doubtful, in words."""
    wall_s: float = 0.0
    """Wall time of this upstream's share of the run."""

    @property
    def flags(self) -> list[str]:
        """Notes, and the timings that a reader should not trust to the last digit."""
        found = list(self.notes) + self.macs.notes
        if self.macs.unlisted:
            found.append(
                "MACs are a lower bound, operators without a formula: " + ", ".join(self.macs.unlisted)
            )
        for name, timed in self.timings.items():
            if timed.noisy:
                found.append(f"{name} timing spreads {timed.spread:.1%} (limit {timing.SPREAD_LIMIT:.0%})")
        load = max((timed.other_load_cores for timed in self.timings.values()), default=0.0)
        if load > timing.LOAD_LIMIT_CORES:
            found.append(f"other processes kept {load:.1f} cores busy during the timings")
        return found


def profile(subjects: Sequence[Subject], options: Options, say: Callable[[str], None]) -> list[Cost]:
    """Measure upstreams; their timings are interleaved, so that the ratios hold on a busy machine too.

    Args:
        subjects: what to measure.
        options: how.
        say: receives one line per finished part.

    Raises:
        SslbenchError: unknown upstream, or one that fails.
    """
    torch.set_num_threads(options.threads)
    costs = []
    for subject in subjects:
        started = time.perf_counter()
        costs.append(_static(subject))
        costs[-1].wall_s = time.perf_counter() - started
        size = f"{costs[-1].params_total / 1e6:.2f} M parameters"
        say(f"{subject.system}: {size}, {costs[-1].macs.total_g:.1f} G MACs")
    if options.speed:
        started = time.perf_counter()
        _time(costs, options)
        for cost in costs:
            cost.wall_s += (time.perf_counter() - started) / len(costs)
        say("speed: " + ", ".join(f"{cost.subject.system} {_speed_line(cost)}" for cost in costs))
        for cost in costs:
            _energy(cost, options)
    if options.growth:
        for cost in costs:
            make = partial(_load, cost.subject, True, options.device)
            cost.growth = measure_growth(make, options.speed, options.budget_s)
            say(f"{cost.subject.system}: grows as {_growth_line(cost.growth.macs_curve)}")
    if options.memory:
        for cost in costs:
            started = time.perf_counter()
            _memory(cost, options)
            cost.wall_s += time.perf_counter() - started
    if options.longest_batch:
        limit_bytes = capacity.memory_limit(options.device, options.memory_gib)
        for cost in costs:
            started = time.perf_counter()
            _longest_batch(cost, options, limit_bytes, say)
            cost.wall_s += time.perf_counter() - started
    return costs


def _load(subject: Subject, frozen: bool, device: str) -> nn.Module:
    return build(subject.upstream, subject.ckpt, frozen).to(device)


def _static(subject: Subject) -> Cost:
    upstream = build(subject.upstream, subject.ckpt, frozen=True)
    total = sum(p.numel() for p in upstream.parameters())
    trainable = _trainable(subject, upstream)
    macs = count_macs(partial(build, subject.upstream, subject.ckpt, True))
    weights, weights_sha256 = weights_of(upstream)
    return Cost(
        subject,
        params_total=total,
        params_trainable=trainable,
        macs=macs,
        weights=weights,
        weights_sha256=weights_sha256,
    )


def _trainable(subject: Subject, frozen: nn.Module) -> int:
    """Parameters that pretraining or fine-tuning would update; a family may fix some for good."""
    if why_no_training(frozen) is not None:
        return sum(p.numel() for p in frozen.parameters())
    thawed = build(subject.upstream, subject.ckpt, frozen=False)
    return sum(p.numel() for p in thawed.parameters() if p.requires_grad)


def _time(costs: Sequence[Cost], options: Options) -> None:
    """Inference of all upstreams, then training steps of all, each group interleaved."""
    inference: dict[str, Callable[[], object]] = {}
    training: dict[str, Callable[[], object]] = {}
    for index, cost in enumerate(costs):
        upstream = _load(cost.subject, True, options.device)
        inference[f"{index} single"] = inference_step(upstream, SINGLE)
        inference[f"{index} batch"] = inference_step(upstream, BATCH)
        if reason := why_no_training(upstream):
            cost.notes.append(f"no training speed: {cost.subject.upstream} {reason}")
        else:
            thawed = _load(cost.subject, False, options.device)
            training[f"{index} train"] = training_step(thawed, BATCH)
    for group in (inference, training):
        try:
            timed = timing.measure(group, options.repeats, options.budget_s)
        except RuntimeError as error:
            raise SslbenchError(f"profile: a timed step failed: {error}") from error
        for key, value in timed.items():
            position, name = key.split(" ")
            costs[int(position)].timings[name] = value


def _energy(cost: Cost, options: Options) -> None:
    counter = energy.open_counter(options.device)
    if isinstance(counter, str):
        cost.energy_method = counter
        return
    cost.energy_method = counter.method
    steps = {"inference": inference_step(_load(cost.subject, True, options.device), BATCH)}
    if "train" in cost.timings:
        steps["train"] = training_step(_load(cost.subject, False, options.device), BATCH)
    for name, step in steps.items():
        spent = energy.measure(step, counter, options.budget_s)
        cost.energy_j_per_audio_s[name] = spent.joules_per_call / BATCH.audio_s


def _growth_line(curve: Curve) -> str:
    line = f"{curve.per_s:.3g} G MACs per second + {curve.per_s2:.2g} G per second squared"
    if curve.crossover_s:
        line += f", equal at {curve.crossover_s:.0f} s"
    return f"{line} (points within {curve.worst_error:.1%})"


def _memory(cost: Cost, options: Options) -> None:
    subject = cost.subject
    train = "train" in cost.timings
    found = memory.peak_memory(subject.upstream, subject.ckpt, options.threads, train, options.device)
    cost.memory_bytes.update(found)
    if not found:
        cost.notes.append("no peak memory: this machine has no /proc/self/status")


def _longest_batch(cost: Cost, options: Options, limit_bytes: int, say: Callable[[str], None]) -> None:
    subject = cost.subject
    if reason := why_no_training(build(subject.upstream, subject.ckpt, frozen=True)):
        cost.notes.append(f"no longest batch: {subject.upstream} {reason}")
        return
    job = memory.Job(
        "update", subject.upstream, subject.ckpt, options.threads, options.device, limit_bytes=limit_bytes
    )

    def peak_bytes(clips: int) -> int | None:
        peak = memory.update_peak_bytes(replace(job, clips=clips))
        used = "memory ran out" if peak is None else f"{peak / 2**30:.2f} of {limit_bytes / 2**30:.2f} GiB"
        say(f"{subject.system}: update of {clips * capacity.CLIP_S:g} s of audio: {used}")
        return peak

    cost.capacity = capacity.longest_batch(peak_bytes, limit_bytes)
    if not cost.capacity.clips:
        cost.notes.append(f"not even {capacity.CLIP_S:g} s of audio fit into {limit_bytes / 2**30:.2f} GiB")


def _speed_line(cost: Cost) -> str:
    line = f"RTF {cost.timings['single'].median_s / SINGLE.audio_s:.4f}"
    if "train" in cost.timings:
        line += f", trains {BATCH.audio_s / cost.timings['train'].median_s:.1f} s/s"
    return line
