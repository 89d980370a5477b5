"""What a pretraining run will take, from a few measured updates of its model at full size."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sslbench import config as configs
from sslbench.nn.upstream import LossOutput, PretrainBatch, SSLModel
from sslbench.pretrain.config import PretrainConfig
from sslbench.pretrain.optimizer import make_updater
from sslbench.profile import energy
from sslbench.train.dist import World, join, leave
from sslbench.train.job import Batch, Job
from sslbench.train.layers import compile_layers, recompute_activations
from sslbench.train.logging import peak_mem_bytes
from sslbench.train.precision import Precision
from sslbench.train.update import UpdateMaker
from sslbench.upstreams import build_model

CLIP_S = 15.0
"""Length of the clips, unless the configuration crops shorter."""
CPU_BATCH_S = 30.0
"""Audio per batch on a CPU, where a GPU's batch would take minutes; time is taken as linear in it."""
STEADY_STEP = 20_000
"""Modules with training schedules are measured where they have ended."""


def read_config(path: Path | str) -> PretrainConfig:
    """A recipe's configuration, which names no data yet."""
    values = {"train_manifest": "not read", "exp_dir": "not written", **configs.read_values(path)}
    return configs.build(PretrainConfig, values, str(path))


@dataclass(frozen=True)
class Measured:
    """Updates of one process."""

    device: str
    precision: str
    batch_s: float
    """Audio per batch."""
    batch_wall_s: float
    """Median wall time of forward, backward and optimizer."""
    peak_mem_bytes: int
    """Of the GPU's allocator; of the process on a CPU."""
    params_total: int
    joules_per_audio_s: float | None
    """Where a counter can be read."""
    energy_method: str

    @property
    def audio_s_per_s(self) -> float:
        """Audio per wall second."""
        return self.batch_s / self.batch_wall_s


@dataclass(frozen=True)
class Plan:
    """A whole run on `gpus` devices like the measured one; time for communication is not in it."""

    steps: int
    gpus: int
    audio_hours: float
    """Seen over all updates and devices."""
    epochs: float | None
    """Passes over the corpus, where its size is given."""
    wall_hours: float
    gpu_hours: float
    kwh: float | None
    """Of the counted device alone."""


class NoiseJob(Job[PretrainBatch, PretrainBatch]):
    """The run's model and optimizer on noise."""

    name = "plan"
    model: SSLModel

    def __init__(self, config: PretrainConfig, world: World) -> None:
        self.config = config
        self.model = build_model(config.upstream, config.model).to(world.device)
        if config.recompute_activations:
            recompute_activations(self.model)
        if config.compile:
            compile_layers(self.model)
        self.updater = make_updater(self.model, config, world.size)

    def collate(self, raw: PretrainBatch) -> Batch[PretrainBatch]:
        """Nothing to do."""
        return Batch(raw, raw.ids, float(raw.audio_lens.sum()) / 16_000, 0)

    def loss(self, inputs: PretrainBatch) -> LossOutput:
        """The model's own."""
        output: LossOutput = self.model(inputs)
        return output

    def noise(self, batch_s: float, device: torch.device) -> PretrainBatch:
        """Clips of equal length with random units."""
        clip_s = min(batch_s, self.config.crop_s or CLIP_S)
        clips, samples = max(1, round(batch_s / clip_s)), round(clip_s * 16_000)
        generator = torch.Generator().manual_seed(0)
        audio = 0.1 * torch.randn(clips, samples, generator=generator)
        frames = -(-samples // 320)
        units = torch.randint(self.model.config.num_units, (clips, frames), generator=generator)
        lens = torch.full((clips,), samples)
        ids = [f"noise-{number}" for number in range(clips)]
        return PretrainBatch(audio.to(device), lens.to(device), units.to(device), ids)


def measure(config: PretrainConfig, batch_s: float | None = None, updates: int = 3) -> Measured:
    """Make a warm-up update and `updates` measured ones.

    Args:
        config: the run.
        batch_s: audio per batch; None takes the run's on a GPU, and 30 s on a CPU.
        updates: measured ones; their median counts.

    Raises:
        SslbenchError: unknown preset, or settings that do not fit.
    """
    world = join(config.device)
    try:
        return _measure(config, world, batch_s, updates)
    finally:
        leave()


def _measure(config: PretrainConfig, world: World, batch_s: float | None, updates: int) -> Measured:
    cuda = world.device.type == "cuda"
    if batch_s is None:
        batch_s = config.max_duration_s if cuda else min(CPU_BATCH_S, config.max_duration_s)
    job = NoiseJob(config, world)
    job.model.train()
    job.model.set_batch_count(STEADY_STEP)
    settings = config.loop_settings()
    maker = UpdateMaker(job, world, settings, Precision.of(settings, world.device))
    batch = job.collate(job.noise(batch_s, world.device))
    counter = energy.open_counter(str(world.device))
    times, spent_j = [], 0.0
    for number in range(updates + 1):
        before_j = 0.0 if isinstance(counter, str) else counter.read_j()
        began = time.perf_counter()
        maker(STEADY_STEP + number, [batch], stop=False)
        if cuda:
            torch.cuda.synchronize()
        if number:  # the first one warms up
            times.append(time.perf_counter() - began)
            spent_j += 0.0 if isinstance(counter, str) else counter.read_j() - before_j
    return Measured(
        device=torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads",
        precision=config.precision,
        batch_s=batch.audio_s,
        batch_wall_s=statistics.median(times),
        peak_mem_bytes=torch.cuda.max_memory_allocated() if cuda else peak_mem_bytes(),
        params_total=sum(p.numel() for p in job.model.parameters()),
        joules_per_audio_s=None if isinstance(counter, str) else spent_j / updates / batch.audio_s,
        energy_method=counter if isinstance(counter, str) else counter.method,
    )


def predict(config: PretrainConfig, measured: Measured, gpus: int, corpus_hours: float | None) -> Plan:
    """The whole run, if every device is as fast as the measured one."""
    audio_s = config.max_steps * config.update_s(gpus)
    gpu_hours = audio_s / measured.audio_s_per_s / 3600
    joules = measured.joules_per_audio_s
    return Plan(
        steps=config.max_steps,
        gpus=gpus,
        audio_hours=audio_s / 3600,
        epochs=audio_s / 3600 / corpus_hours if corpus_hours else None,
        wall_hours=gpu_hours / gpus,
        gpu_hours=gpu_hours,
        kwh=None if joules is None else joules * audio_s / 3.6e6,
    )


def to_json(config: PretrainConfig, measured: Measured, plan: Plan) -> dict[str, Any]:
    """Everything, for machines."""
    made = {**asdict(measured), "audio_s_per_s": measured.audio_s_per_s}
    return {"upstream": config.upstream, "measured": made, "plan": asdict(plan)}
