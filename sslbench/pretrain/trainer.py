"""Pretraining as a job for the training engine."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from sslbench import io, provenance
from sslbench.data.loading import AudioBatch, SkipLog
from sslbench.nn.upstream import LossOutput, PretrainBatch, SSLModel
from sslbench.pretrain import summary
from sslbench.pretrain.batches import check_units, collate, make_loader
from sslbench.pretrain.config import MAY_CHANGE, PretrainConfig
from sslbench.pretrain.inputs import fit_inputs
from sslbench.pretrain.optimizer import make_updater
from sslbench.train.dist import World, join, leave
from sslbench.train.job import Autocast, Batch, Job
from sslbench.train.layers import compile_layers, recompute_activations
from sslbench.train.logging import per_frame
from sslbench.train.loop import Trainer
from sslbench.train.randomness import derive, seed_everything
from sslbench.train.schedule import batch_count
from sslbench.train.settings import CONFIG, claim
from sslbench.upstreams import build_model

INTERRUPTED = 130


def run(config: PretrainConfig) -> int:
    """Train, or go on with a run. Returns 0 when complete, 130 when asked to stop (a checkpoint is saved).

    Raises:
        SslbenchError: unfit data, settings or checkpoint; loss or gradient not finite.
    """
    world = join(config.device)
    exp = Path(config.exp_dir)
    with io.only_one(exp) if world.is_main else nullcontext():
        try:
            return _run(config, world, exp)
        finally:
            leave()


def _run(config: PretrainConfig, world: World, exp: Path) -> int:
    # the main process decides: over a network, folders do not look the same to all at the same time
    if world.share(int(summary.is_complete(exp, config.max_steps))):
        if world.is_main:
            print(f"{exp}: already complete ({config.max_steps} steps); raise max_steps to go on")
        return 0
    settings = claim(config, MAY_CHANGE)
    trainer = Trainer(PretrainJob(config, world), config.loop_settings(), world)
    if world.is_main:
        io.write_yaml(exp / CONFIG, settings)
    return 0 if trainer.fit() else INTERRUPTED


class PretrainJob(Job[AudioBatch, PretrainBatch]):
    """An encoder that learns to predict units."""

    name = "pretrain"
    model: SSLModel

    def __init__(self, config: PretrainConfig, world: World) -> None:
        """Build the model and open the data.

        Raises:
            SslbenchError: unknown preset, or manifests whose units do not fit.
        """
        self.config, self.world, self.exp = config, world, Path(config.exp_dir)
        torch.manual_seed(derive(config.seed, "weights"))
        self.model = build_model(config.upstream, config.model).to(world.device)
        fit_inputs(self.model, config)
        if config.recompute_activations:
            recompute_activations(self.model)
        if config.compile:
            compile_layers(self.model)
        num_units = getattr(self.model.config, "num_units", None)
        for manifest in filter(None, (config.train_manifest, config.dev_manifest)):
            check_units(manifest, num_units)
        self.updater = make_updater(self.model, config, world.size)
        skip_log = SkipLog(self.exp / f"skipped-{world.rank}.jsonl", config.skip_limit_share)
        self.stream = make_loader(config, config.train_manifest, world, skip_log)

    def collate(self, raw: AudioBatch) -> Batch[PretrainBatch]:
        """Add units, crop, move; draws from torch's generator when cropping."""
        made = collate(raw, self.config, self.config.train_manifest, self.world.device)
        return Batch(made, made.ids, float(made.audio_lens.sum()) / 16_000, raw.epoch)

    def loss(self, inputs: PretrainBatch) -> LossOutput:
        """The model's own."""
        output: LossOutput = self.model(inputs)
        return output

    def before_update(self, step: int) -> None:
        """Training mode, and the model's schedules."""
        self.model.train()
        self.model.set_batch_count(self._batch_count(step))

    def facts(self, step: int) -> dict[str, float]:
        """Where the model's schedules are."""
        return {"batch_count": self._batch_count(step)}

    def _batch_count(self, step: int) -> float:
        return batch_count(step, self.config.update_s(self.world.size), self.config.ref_duration_s)

    def rank_state(self) -> dict[str, torch.Tensor]:
        """Generators that the model holds."""
        return self.model.training_state()

    def load_rank_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore them."""
        self.model.load_training_state(state)

    def validate(self, step: int, autocast: Autocast) -> dict[str, float]:
        """Loss and accuracy per masked frame of the dev manifest, with the same masks every time."""
        config, world, manifest = self.config, self.world, self.config.dev_manifest
        if not manifest:
            return {}
        loader = make_loader(config, manifest, world, SkipLog(limit_share=config.skip_limit_share))
        sums = {"loss_sum": 0.0, "frames": 0.0, "correct": 0.0}
        limit_s = (config.valid_max_s or float("inf")) / world.size
        seconds = 0.0
        self.model.eval()
        for audio in loader.epoch(0):
            if seconds >= limit_s:
                break
            if len(audio) == 0:
                continue
            seconds += float(audio.audio_lens.sum()) / 16_000
            seed_everything(self.model, config.seed, "valid", audio.position * world.size + world.rank)
            batch = collate(audio, config, manifest, world.device)
            with autocast():
                output = self.model(batch)
            sums["loss_sum"] += float(output.loss_sum)
            sums["frames"] += float(output.frames)
            sums["correct"] += float(output.metrics.get("correct", 0.0))
        totals = world.sum(list(sums.values()))
        return {f"dev_{name}": v for name, v in per_frame(dict(zip(sums, totals, strict=True))).items()}

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the summary."""
        machine = provenance.machine(gpu=self.world.device.type == "cuda")
        summary.write(self.exp, self.config, {**facts, "machine": machine})
