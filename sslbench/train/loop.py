"""The training loop: step-based, resumable at any update, alone or under torchrun."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from sslbench.checkpoint import load_strict
from sslbench.errors import SslbenchError
from sslbench.progress import Progress
from sslbench.signals import heeding
from sslbench.train import checkpoint
from sslbench.train.average import RunningAverage
from sslbench.train.dist import World
from sslbench.train.job import Batch, Job
from sslbench.train.logging import Curves, JsonLog, Meter
from sslbench.train.precision import Precision
from sslbench.train.settings import LoopSettings
from sslbench.train.update import DivergedError, NotFiniteError, UpdateMaker, UpdateResult
from sslbench.train.watchdog import UnstableError, Watchdog

CHECKPOINTS, LOG = "checkpoints", "log.jsonl"
ROLLBACK_LR_FACTOR = 0.5
STATE_KEYS = {"ranks", "updater", "precision", "watchdog", "rollbacks", "data", "job"}


class Trainer:
    """The state of a run, and its loop."""

    def __init__(self, job: Job[Any, Any], settings: LoopSettings, world: World) -> None:
        self.job, self.settings, self.world = job, settings, world
        self.exp = Path(settings.exp_dir)
        self.average = RunningAverage(job.model.state_dict(), settings.average_every)
        self.precision = Precision.of(settings, world.device)
        self.watchdog = Watchdog(job.model, world) if settings.watchdog else None
        self.meter = Meter()
        self.step = self.epoch = self.bad_updates = self.rollbacks = 0
        self.saved_step = -1
        self.wall_s = self.audio_s = 0.0
        self.latest: dict[str, float] = {}  # train_loss, train_acc, dev_…
        self._stop_signal: int | None = None

    def fit(self) -> bool:
        """Train to the last step, from the newest whole checkpoint.

        Returns:
            True when complete; False when a signal asked to stop, and a checkpoint is saved.

        Raises:
            SslbenchError: no whole checkpoint, unfit data, or loss or gradient not finite.
        """
        self._resume()
        self._ticked = time.monotonic()
        settings = self.settings
        self.job.begin(self.step)
        self.maker = UpdateMaker(self.job, self.world, settings, self.precision)
        wanted = settings.tensorboard and self.world.is_main
        self.curves = Curves(self.exp / "tensorboard", wanted, self.step)
        try:
            with (
                heeding(self._ask_to_stop),
                Progress(self.job.name, settings.max_steps, self.step) as progress,
            ):
                return self._loop(progress)
        finally:
            self.curves.close()

    # --- loop

    def _loop(self, progress: Progress) -> bool:
        settings, stream = self.settings, self.job.stream.endless()
        self.meter.restart_clock()
        while self.step < settings.max_steps:
            try:
                result = self._update(stream)
            except UnstableError as alarm:
                if not self.watchdog:
                    raise
                self._roll_back(alarm)
                stream, progress.done = self.job.stream.endless(), self.step
                continue
            if self.world.is_main:
                progress.advance(note=self._note())
            if self._due(settings.valid_every):
                self._validate()
            stop = result is not None and result.stop and self.step < settings.max_steps
            if self._due(settings.save_every) or stop:
                self._save()
            if stop:
                self._say(f"stopped after step {self.step}; saved")
                return False
        self._tick()
        if self.world.is_main:
            facts = {"steps": self.step, "wall_s": round(self.wall_s, 3), "audio_s": self.audio_s}
            self.job.finish({**facts, **self.latest})
        self.world.wait()
        return True

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.max_steps

    def _update(self, stream: Iterator[Any]) -> UpdateResult | None:
        """One update; None when it was skipped for not being finite."""
        batches = self._fetch(stream)
        self.job.before_update(self.step)
        try:
            with self._looking() as seen:
                result = self.maker(self.step, batches, stop=self._stop_signal is not None)
        except NotFiniteError as error:
            self._skip(batches, error)
            return None
        self.step += 1
        if self.watchdog and result.grad_norm is not None:
            loss = result.sums["loss_sum"] / max(1.0, result.sums["frames"])
            self.watchdog.judge(self.step, loss, result.grad_norm, seen, _ids(batches))
        self.bad_updates = 0
        self.average.update(self.job.model.state_dict, self.step)
        self.audio_s += result.audio_s
        self.meter.add(result.sums, result.audio_s)
        if self._due(self.settings.log_every):
            self._log(result)
        return result

    def _looking(self) -> AbstractContextManager[dict[str, torch.Tensor]]:
        return self.watchdog.looking(self.step) if self.watchdog else nullcontext({})

    def _fetch(self, stream: Iterator[Any]) -> list[Batch[Any]]:
        batches = []
        for number in range(self.settings.accum):
            began = time.monotonic()
            raw = next(stream)
            self.meter.wait_s += time.monotonic() - began
            self.maker.seed_for(self.step, number)
            batches.append(self.job.collate(raw))
        self.epoch = batches[-1].epoch
        if self.settings.utterance_log:
            self.utterances.write({"step": self.step + 1, "epoch": self.epoch, "ids": _ids(batches)})
        return batches

    def _skip(self, batches: list[Batch[Any]], error: NotFiniteError) -> None:
        """Go on without an update, a few times in a row where the job allows it."""
        if not self.settings.bad_updates:
            raise error
        self.step += 1
        self.bad_updates += 1
        self._event("not finite, update skipped", cuts=_ids(batches))
        if self.bad_updates >= self.settings.bad_updates:
            raise DivergedError(f"{self.bad_updates} updates in a row were skipped; the last: {error}")

    def _validate(self) -> None:
        with torch.no_grad():
            row = self.job.validate(self.step, self.precision.autocast)
        if row:
            self.latest = {name: v for name, v in self.latest.items() if name not in row}
            self.latest.update({name: v for name, v in row.items() if math.isfinite(v)})
            self._write({"step": self.step, **row}, "dev")
        self.meter.restart_clock()

    # --- what is written

    def _log(self, result: UpdateResult) -> None:
        means, cost = self.meter.close()
        self.latest.update({f"train_{name}": means[name] for name in ("loss", "acc") if name in means})
        self._tick()
        row = {
            "step": self.step,
            "epoch": self.epoch,
            **means,
            "lr": self.job.updater.lr,
            "grad_norm": result.grad_norm,
            **({"grad_scale": self.precision.scale} if self.precision.scaled else {}),
            **self.job.facts(self.step - 1),
            "audio_hours": round(self.audio_s / 3600, 6),
            "wall_s": round(self.wall_s, 2),
            **cost,
        }
        self._write(row, "train")

    def _write(self, row: dict[str, Any], group: str) -> None:
        if self.world.is_main:
            self.log.write(row)
            self.curves.write(row, group)

    def _event(self, what: str, **facts: Any) -> None:
        self._write({"step": self.step, "event": what, **facts}, "event")

    def _say(self, text: str) -> None:
        if self.world.is_main:
            print(f"{self.exp}: {text}", file=sys.stderr)

    def _note(self) -> str:
        shown = ("train_loss", "train_acc")
        notes = [name for name in self.latest if name in shown or name.startswith("dev_")]
        return " ".join(f"{name} {self.latest[name]:.3f}" for name in notes)

    def _tick(self) -> None:
        now = time.monotonic()
        self.wall_s, self._ticked = self.wall_s + now - self._ticked, now

    # --- state

    def _save(self) -> None:
        """Write a checkpoint of the present step, unless it is already there."""
        if self.saved_step == self.step:
            return
        self._tick()
        ranks = self.world.gather(self.job.rank_state())
        if self.world.is_main:
            state = {
                "job": self.job.state(),
                "ranks": ranks,
                "updater": self.job.updater.state_dict(),
                "precision": self.precision.state_dict(),
                "watchdog": self.watchdog.state_dict() if self.watchdog else None,
                "rollbacks": self.rollbacks,
                "data": self.job.stream.state_dict(),
                "sums": self.meter.sums,
                "bad_updates": self.bad_updates,
                "wall_s": self.wall_s,
                "audio_s": self.audio_s,
                "latest": self.latest,
            }
            facts = {"world_size": self.world.size, "audio_hours": self.audio_s / 3600, **self.latest}
            model = self.job.model.state_dict()
            snapshot = checkpoint.Snapshot(self.step, model, self.average.value, state, facts)
            checkpoint.save(self.exp / CHECKPOINTS, snapshot, self.settings.keep_last)
        self.saved_step = self.step
        self.world.wait()

    def _resume(self) -> None:
        """Go to the newest whole checkpoint, if there is one, and drop what was logged after it."""
        root = self.exp / CHECKPOINTS
        found = checkpoint.newest_good(root) if self.world.is_main else None
        step = self.world.share(-1 if found is None else found)
        if step >= 0:
            self._restore(checkpoint.load(checkpoint.folder_of(root, step)))
            self._say(f"going on after step {step}")
        self.log = JsonLog(self.exp / LOG)
        self.utterances = JsonLog(self.exp / f"utterances-{self.world.rank}.jsonl")
        self._rewind_logs()

    def _rewind_logs(self) -> None:
        """Drop what was logged of updates that will be made again, also by processes that are no more."""
        if self.world.is_main:
            for path in (self.exp / LOG, *self.exp.glob("utterances-*.jsonl")):
                JsonLog(path).rewind(self.step)
        self.world.wait()

    def _roll_back(self, alarm: UnstableError) -> None:
        """Return to the last good checkpoint with a smaller step; the second time, stop.

        Raises:
            SslbenchError: it was done before, or there is no such checkpoint.
        """
        if self.rollbacks:
            raise SslbenchError(
                f"{alarm}. Going back with half the rate did not help; check the utterances, lower lr or "
                "lengthen the warm-up"
            )
        root, found = self.exp / CHECKPOINTS, None
        if self.world.is_main:
            checkpoint.set_aside_after(root, alarm.healthy_step, "unstable")
            found = checkpoint.newest_good(root)
        step = self.world.share(-1 if found is None else found)
        if step < 0:
            raise SslbenchError(f"{alarm}. There is no checkpoint from before that to go back to; lower lr")
        self._restore(checkpoint.load(checkpoint.folder_of(root, step)))
        self.rollbacks += 1
        self.job.updater.lr_factor *= ROLLBACK_LR_FACTOR
        self.job.updater.drop_gradients()
        self._rewind_logs()
        self._event("rolled back", reason=str(alarm), lr_factor=self.job.updater.lr_factor)
        self._say(f"{alarm}; going back to step {step} with {self.job.updater.lr_factor:g} of the rate")
        self.meter.restart_clock()

    def _restore(self, snapshot: checkpoint.Snapshot) -> None:
        state, job = snapshot.trainer, self.job
        where = str(checkpoint.folder_of(self.exp / CHECKPOINTS, snapshot.step))
        if STATE_KEYS - state.keys():
            raise SslbenchError(f"{where}: was made by an earlier version; begin anew in another exp_dir")
        job.stream.load_state_dict(state["data"], self.settings.allow_reshard)
        load_strict(job.model, snapshot.model, where)
        self.average.load(snapshot.average)
        if len(state["ranks"]) == self.world.size:  # else every generator is seeded per batch anyway
            job.load_rank_state(state["ranks"][self.world.rank])
        job.load_state(state["job"])
        job.updater.load_state_dict(state["updater"])
        self.precision.load_state_dict(state["precision"])
        if self.watchdog and state["watchdog"]:
            self.watchdog.load_state_dict(state["watchdog"])
        self.rollbacks = state["rollbacks"]
        self.step = self.saved_step = snapshot.step
        self.epoch = state["data"]["epoch"]
        self.bad_updates = state["bad_updates"]
        self.meter.sums = dict(state["sums"])
        self.wall_s, self.audio_s = state["wall_s"], state["audio_s"]
        self.latest = dict(state["latest"])

    # --- being asked to stop

    def _ask_to_stop(self, number: int, _: Any) -> None:
        # a person who presses Ctrl-C again wants it at once, unsaved; SIGTERM comes twice by itself, from a
        # scheduler that signals every process and from torchrun, which passes it on
        if number == self._stop_signal == signal.SIGINT:
            raise KeyboardInterrupt
        self._stop_signal = number


def _ids(batches: list[Batch[Any]]) -> list[str]:
    return [name for batch in batches for name in batch.ids]
