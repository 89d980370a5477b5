"""The pretraining loop: step-based, resumable at any update, alone or under torchrun."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from sslbench import config as configs
from sslbench import io
from sslbench.checkpoint import load_strict
from sslbench.data.loading import AudioBatch, SkipLog
from sslbench.nn.upstream import PretrainBatch
from sslbench.pretrain import checkpoint, summary
from sslbench.pretrain.average import RunningAverage
from sslbench.pretrain.batches import check_units, collate, make_loader
from sslbench.pretrain.config import PretrainConfig, check_same_run
from sslbench.pretrain.dist import World, join
from sslbench.pretrain.logging import Curves, JsonLog, Meter
from sslbench.pretrain.randomness import derive
from sslbench.pretrain.schedule import Updater, batch_count
from sslbench.pretrain.update import UpdateMaker, UpdateResult
from sslbench.pretrain.validate import validate
from sslbench.progress import Progress
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
        return _run(config, world, exp)


def _run(config: PretrainConfig, world: World, exp: Path) -> int:
    try:
        if summary.is_complete(exp, config.max_steps):
            if world.is_main:
                print(f"{exp}: already complete ({config.max_steps} steps); raise max_steps to go on")
            return 0
        return Trainer(config, world).fit()
    finally:
        world.close()


class Trainer:
    """The state of a run and its loop."""

    def __init__(self, config: PretrainConfig, world: World) -> None:
        self.config, self.world = config, world
        self.exp = Path(config.exp_dir)
        self.settings = configs.to_dict(config)
        if (self.exp / "config.yaml").is_file():
            check_same_run(io.read_yaml(self.exp / "config.yaml"), self.settings, str(self.exp))
        torch.manual_seed(derive(config.seed, "weights"))
        self.model = build_model(config.upstream, config.model).to(world.device)
        num_units = getattr(self.model.config, "num_units", None)
        for manifest in filter(None, (config.train_manifest, config.dev_manifest)):
            check_units(manifest, config.label_rate_hz, num_units)
        self.updater = Updater(self.model, config, world.size)
        self.average = RunningAverage(self.model.state_dict(), config.average_every or 1)
        self.skip_log = SkipLog(self.exp / f"skipped-{world.rank}.jsonl", config.skip_limit_share)
        self.loader = make_loader(config, config.train_manifest, world, self.skip_log)
        self.meter = Meter()
        self.step = self.epoch = 0
        self.saved_step = -1
        self.wall_s = self.audio_s = 0.0
        self.latest: dict[str, float] = {}  # train_loss, train_acc, dev_loss, dev_acc
        self._ticked = time.monotonic()
        self._stop_signal: int | None = None

    # --- state

    def resume(self) -> None:
        """Go to the newest whole checkpoint, if there is one."""
        root = self.exp / "checkpoints"
        found = checkpoint.newest_good(root) if self.world.is_main else None
        step = self.world.share(-1 if found is None else found)
        if step >= 0:
            snapshot = checkpoint.load(checkpoint.folder_of(root, step))
            self._restore(snapshot)
            if self.world.is_main:
                print(f"{self.exp}: going on after step {step}", file=sys.stderr)
        self.log, self.utterances = self._logs()

    def _restore(self, snapshot: checkpoint.Snapshot) -> None:
        state = snapshot.trainer
        where = str(checkpoint.folder_of(self.exp / "checkpoints", snapshot.step))
        self.loader.load_state_dict(state["data"])
        load_strict(self.model, snapshot.model, where)
        if snapshot.average is not None:
            self.average.load(snapshot.average)
        self.model.load_training_state(state["models"][self.world.rank])
        self.updater.load_state_dict(state["updater"])
        self.step = self.saved_step = snapshot.step
        self.epoch = state["data"]["epoch"]
        self.meter.sums = dict(state["sums"])
        self.wall_s, self.audio_s = state["wall_s"], state["audio_s"]
        self.latest = dict(state["latest"])
        self._set_batch_count(self.step)

    def save(self) -> None:
        """Write a checkpoint of the present step, unless it is already there."""
        if self.saved_step == self.step:
            return
        self._tick()
        models = self.world.gather(self.model.training_state())
        if self.world.is_main:
            trainer = {
                "models": models,
                "updater": self.updater.state_dict(),
                "data": self.loader.state_dict(),
                "sums": self.meter.sums,
                "wall_s": self.wall_s,
                "audio_s": self.audio_s,
                "latest": self.latest,
            }
            average = self.average.value if self.config.average_every else None
            facts = {"world_size": self.world.size, "audio_hours": self.audio_s / 3600, **self.latest}
            state = checkpoint.Snapshot(self.step, self.model.state_dict(), average, trainer, facts)
            checkpoint.save(self.exp / "checkpoints", state, self.config.keep_last)
        self.saved_step = self.step
        self.world.wait()

    def _tick(self) -> None:
        now = time.monotonic()
        self.wall_s, self._ticked = self.wall_s + now - self._ticked, now

    def _logs(self) -> tuple[JsonLog, JsonLog]:
        log = JsonLog(self.exp / "log.jsonl")
        utterances = JsonLog(self.exp / f"utterances-{self.world.rank}.jsonl")
        if self.world.is_main:
            log.rewind(self.step)
        utterances.rewind(self.step)
        return log, utterances

    # --- loop

    def fit(self) -> int:
        """Train to the last step. Returns 0, or 130 when asked to stop by SIGINT or SIGTERM."""
        self.resume()
        if self.world.is_main:
            io.write_yaml(self.exp / "config.yaml", self.settings)
        self.curves = Curves(
            self.exp / "tensorboard", self.config.tensorboard and self.world.is_main, self.step
        )
        previous = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self._loop()
        finally:
            self.curves.close()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _loop(self) -> int:
        config, stream = self.config, self.loader.endless()
        self.model.train()
        self.maker = UpdateMaker(
            self.model, self.updater, self.world, config.seed, config.precision == "bf16"
        )
        self.meter.restart_clock()
        self._ticked = time.monotonic()
        with Progress("pretrain", config.max_steps, self.step) as progress:
            while self.step < config.max_steps:
                result = self._update(stream)
                if self.world.is_main:
                    progress.advance(note=self._note())
                if self._due(config.valid_every) and config.dev_manifest:
                    self._validate(config.dev_manifest)
                stop = result.stop and self.step < config.max_steps
                if self._due(config.save_every) or stop:
                    self.save()
                if stop:
                    if self.world.is_main:
                        print(f"{self.exp}: stopped after step {self.step}; saved", file=sys.stderr)
                    return INTERRUPTED
        self._tick()
        if self.world.is_main:
            facts = {"steps": self.step, "wall_s": round(self.wall_s, 3), "audio_s": self.audio_s}
            summary.write(self.exp, config, {**facts, **self.latest})
        self.world.wait()
        return 0

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.max_steps

    def _update(self, stream: Iterator[AudioBatch]) -> UpdateResult:
        batches = self._fetch(stream)
        self._set_batch_count(self.step)
        result = self.maker(self.step, self.epoch, batches, stop=self._stop_signal is not None)
        self.step += 1
        if self.config.average_every:
            self.average.update(self.model.state_dict(), self.step)
        self.audio_s += result.audio_s
        self.meter.add(result.sums, result.audio_s)
        if self._due(self.config.log_every):
            self._log(result)
        return result

    def _fetch(self, stream: Iterator[AudioBatch]) -> list[PretrainBatch]:
        batches = []
        for number in range(self.config.accum):
            began = time.monotonic()
            audio = next(stream)
            self.epoch = audio.epoch
            self.meter.wait_s += time.monotonic() - began
            self.maker.seed_for(self.step, number, self.config.accum)
            batches.append(collate(audio, self.config, self.config.train_manifest, self.world.device))
        if self.config.utterance_log:
            ids = [name for batch in batches for name in batch.ids]
            self.utterances.write({"step": self.step + 1, "epoch": self.epoch, "ids": ids})
        return batches

    def _set_batch_count(self, step: int) -> None:
        self.model.set_batch_count(batch_count(step, self.config, self.world.size))

    def _log(self, result: UpdateResult) -> None:
        means, cost = self.meter.close()
        self.latest.update(train_loss=means["loss"], train_acc=means.get("acc", 0.0))
        row = {
            "step": self.step,
            "epoch": self.epoch,
            **means,
            "lr": self.updater.lr,
            "grad_norm": result.grad_norm,
            "batch_count": batch_count(self.step - 1, self.config, self.world.size),
            "audio_hours": round(self.audio_s / 3600, 6),
            **cost,
        }
        if self.world.is_main:
            self.log.write(row)
            self.curves.write(row, "train")

    def _validate(self, manifest: str) -> None:
        means = validate(self.maker, self.config, manifest)
        self.latest.update(dev_loss=means["loss"], dev_acc=means["acc"])
        row = {"step": self.step, "dev_loss": means["loss"], "dev_acc": means["acc"]}
        if self.world.is_main:
            self.log.write(row)
            self.curves.write(row, "dev")
        self.meter.restart_clock()

    def _note(self) -> str:
        names = ("train_loss", "train_acc", "dev_loss", "dev_acc")
        return " ".join(f"{name} {self.latest[name]:.3f}" for name in names if name in self.latest)

    def _ask_to_stop(self, number: int, _: Any) -> None:
        if self._stop_signal is not None:  # asked twice: at once, without saving
            raise KeyboardInterrupt
        self._stop_signal = number
