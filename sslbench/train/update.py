"""One update: forward and backward over the accumulated batches of all processes, checks, optimizer."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.nn.upstream import LossOutput
from sslbench.train.dist import World
from sslbench.train.job import Batch, Job
from sslbench.train.precision import Precision
from sslbench.train.randomness import seed_everything
from sslbench.train.settings import LoopSettings

SHOWN_IDS = 64


class NotFiniteError(SslbenchError):
    """Loss or gradient is not finite; nothing was updated."""


class DivergedError(SslbenchError):
    """Too many updates in a row were skipped because loss or gradient were not finite."""


@dataclass
class UpdateResult:
    """Sums over the update's batches and all processes."""

    sums: dict[str, float]
    """`loss_sum`, `frames` and the model's own sums."""
    audio_s: float
    """Audio consumed."""
    grad_norm: float | None
    """Of the mean loss per frame, before clipping; None when fp16 overflowed and nothing was updated."""
    stop: bool
    """Whether some process was asked to stop."""


class _Loss(nn.Module):
    """A job's loss as a module: what DDP wraps."""

    def __init__(self, job: Job[Any, Any]) -> None:
        super().__init__()
        self.model = job.model
        self.job = job

    def forward(self, inputs: Any) -> LossOutput:
        return self.job.loss(inputs)


class UpdateMaker:
    """Makes updates whose gradient is that of the loss per frame, over all batches and processes."""

    def __init__(
        self, job: Job[Any, Any], world: World, settings: LoopSettings, precision: Precision
    ) -> None:
        self.job, self.world, self.settings, self.precision = job, world, settings, precision
        self.loss: nn.Module = _Loss(job)
        if world.size > 1:
            # layer skips leave parameters without a gradient, differently on every process
            self.loss = nn.parallel.DistributedDataParallel(
                self.loss, find_unused_parameters=True, broadcast_buffers=False
            )

    def __call__(self, step: int, batches: list[Batch[Any]], stop: bool) -> UpdateResult:
        """Make update number `step` (from 0).

        Args:
            step: number of the update.
            batches: this process's.
            stop: whether this process was asked to stop.

        Raises:
            NotFiniteError: loss or gradient is not finite; nothing was updated.
        """
        updater = self.job.updater
        alone = self.settings.mean_first and self.world.size == len(batches) == 1
        outputs = [self._backward(step, number, batches, alone) for number in range(len(batches))]
        sums, audio_s, stopped = self._reduce(outputs, batches, stop)
        self._check_loss(step, sums["loss_sum"], outputs, batches)
        # DDP averages over processes; the loss per frame needs the sum over processes by all frames
        factor = 1.0 if alone else self.world.size / max(1.0, sums["frames"])
        updater.scale_gradients(factor / self.precision.scale)
        grad_norm = updater.clip()
        finite = math.isfinite(grad_norm)
        self.precision.adjust(step, finite)
        if finite:
            updater.step(step, batches[-1].epoch)
            return UpdateResult(sums, audio_s, grad_norm, stopped)
        updater.drop_gradients()
        if not self.precision.scaled:
            raise NotFiniteError(
                f"step {step}: the gradient is not finite though the loss is, with {_names(batches)}; "
                "nothing was updated; try precision: fp32 or a smaller lr"
            )
        return UpdateResult(sums, audio_s, None, stopped)

    def _backward(self, step: int, number: int, batches: list[Batch[Any]], alone: bool) -> LossOutput:
        batch, last = batches[number], number == len(batches) - 1
        self.seed_for(step, number)
        # gradients travel once per update, with the last batch
        apart = isinstance(self.loss, nn.parallel.DistributedDataParallel) and not last
        with self.loss.no_sync() if apart else contextlib.nullcontext():  # type: ignore[operator]
            with self.precision.autocast():
                output: LossOutput = self.loss(batch.inputs)
            loss = output.loss_sum / output.frames if alone else output.loss_sum * float(bool(batch.ids))
            (loss * self.precision.scale).backward()
        if not last and self.world.device.type == "cuda":
            # what this pass sent to the host without waiting (Whiten) is read by the next forward pass
            torch.cuda.current_stream().synchronize()
        return output

    def seed_for(self, step: int, number: int) -> None:
        """Seed for a batch by its number among all processes' batches."""
        micro = (step * self.settings.accum + number) * self.world.size + self.world.rank
        seed_everything(self.job.model, self.settings.seed, self.job.seed_place, micro)

    def _reduce(
        self, outputs: list[LossOutput], batches: list[Batch[Any]], stop: bool
    ) -> tuple[dict[str, float], float, bool]:
        names = sorted(outputs[0].metrics)
        real = [o for o, batch in zip(outputs, batches, strict=True) if batch.ids]
        columns: list[float | torch.Tensor] = [
            float(stop),
            sum(batch.audio_s for batch in batches if batch.ids),
            _total([o.loss_sum for o in real]),
            _total([o.frames for o in real]),
            *(_total([o.metrics[name] for o in real]) for name in names),
        ]
        stopped, audio_s, *sums = self.world.sum(columns)
        return dict(zip(["loss_sum", "frames", *names], sums, strict=True)), audio_s, stopped > 0

    def _check_loss(
        self, step: int, loss_sum: float, outputs: list[LossOutput], batches: list[Batch[Any]]
    ) -> None:
        if math.isfinite(loss_sum):
            return
        self.job.updater.drop_gradients()
        bad = [b for o, b in zip(outputs, batches, strict=True) if not bool(torch.isfinite(o.loss_sum))]
        who = _names(bad) if bad else "a batch of another process"
        raise NotFiniteError(
            f"step {step}: the loss is not finite with {who}; nothing was updated; "
            "listen to these, or try precision: fp32 or a smaller lr"
        )


def _total(values: list[torch.Tensor]) -> torch.Tensor | float:
    return torch.stack([v.detach().to(torch.float64) for v in values]).sum() if values else 0.0


def _names(batches: list[Batch[Any]]) -> str:
    ids = [name for batch in batches for name in batch.ids]
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return "utterances " + ", ".join(ids[:SHOWN_IDS]) + more
