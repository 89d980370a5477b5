"""One update: forward and backward over the accumulated batches of all processes, checks, optimizer."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.nn.upstream import LossOutput, PretrainBatch, SSLModel
from sslbench.pretrain.dist import World
from sslbench.pretrain.randomness import seed_everything
from sslbench.pretrain.schedule import Updater

SHOWN_IDS = 64


@dataclass
class UpdateResult:
    """Sums over the update's batches and all processes."""

    sums: dict[str, float]
    """`loss_sum`, `frames` and the model's own sums."""
    audio_s: float
    """Audio consumed."""
    grad_norm: float
    """Of the mean loss per frame, before clipping."""
    stop: bool
    """Whether some process was asked to stop."""


class UpdateMaker:
    """Makes updates whose gradient is that of the loss per frame, over all batches and processes."""

    def __init__(self, model: SSLModel, updater: Updater, world: World, seed: int, bf16: bool) -> None:
        self.model = model
        self.updater = updater
        self.world = world
        self.seed = seed
        self.bf16 = bf16
        self.wrapped: nn.Module = model
        if world.size > 1:
            # layer skips leave parameters without a gradient, differently on every process
            self.wrapped = nn.parallel.DistributedDataParallel(
                model, find_unused_parameters=True, broadcast_buffers=False
            )

    def __call__(self, step: int, epoch: int, batches: list[PretrainBatch], stop: bool) -> UpdateResult:
        """Make update number `step` (from 0).

        Args:
            step: number of the update.
            epoch: pass over the data, for the learning rate.
            batches: this process's; one without ids only keeps processes in step and counts nothing.
            stop: whether this process was asked to stop.

        Raises:
            SslbenchError: loss or gradient is not finite; nothing was updated.
        """
        outputs = [self._backward(step, number, batches) for number in range(len(batches))]
        sums, audio_s, stopped = self._reduce(outputs, batches, stop)
        self._check_loss(step, sums["loss_sum"], outputs, batches)
        # DDP averages over processes; the loss per frame needs the sum over processes by all frames
        self.updater.scale_gradients(self.world.size / max(1.0, sums["frames"]))
        grad_norm = float(self.updater.gradient_norm())
        if not torch.isfinite(torch.tensor(grad_norm)):
            raise SslbenchError(
                f"step {step}: the gradient is not finite though the loss is, with {_names(batches)}; "
                "nothing was updated; try precision: fp32 or a smaller lr"
            )
        self.updater.step(step, epoch)
        return UpdateResult(sums, audio_s, grad_norm, stopped)

    def _backward(self, step: int, number: int, batches: list[PretrainBatch]) -> LossOutput:
        batch, last = batches[number], number == len(batches) - 1
        self.seed_for(step, number, len(batches))
        # gradients travel once per update, with the last batch
        apart = isinstance(self.wrapped, nn.parallel.DistributedDataParallel) and not last
        with self.wrapped.no_sync() if apart else contextlib.nullcontext():  # type: ignore[operator]
            with self.autocast():
                output: LossOutput = self.wrapped(batch)
            (output.loss_sum * float(bool(batch.ids))).backward()
        return output

    def seed_for(self, step: int, number: int, accum: int) -> None:
        """Seed for a batch by its number among all processes' batches."""
        micro = (step * accum + number) * self.world.size + self.world.rank
        seed_everything(self.model, self.seed, "batch", micro)

    def autocast(self) -> Any:
        """bf16 where asked for."""
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def _reduce(
        self, outputs: list[LossOutput], batches: list[PretrainBatch], stop: bool
    ) -> tuple[dict[str, float], float, bool]:
        names = sorted(outputs[0].metrics)
        real = [o for o, batch in zip(outputs, batches, strict=True) if batch.ids]
        columns: list[float | torch.Tensor] = [
            float(stop),
            sum(float(batch.audio_lens.sum()) for batch in batches if batch.ids) / 16_000,
            _total([o.loss_sum for o in real]),
            _total([o.frames for o in real]),
            *(_total([o.metrics[name] for o in real]) for name in names),
        ]
        stopped, audio_s, *sums = self.world.sum(columns)
        return dict(zip(["loss_sum", "frames", *names], sums, strict=True)), audio_s, stopped > 0

    def _check_loss(
        self, step: int, loss_sum: float, outputs: list[LossOutput], batches: list[PretrainBatch]
    ) -> None:
        if torch.isfinite(torch.tensor(loss_sum)):
            return
        bad = [b for o, b in zip(outputs, batches, strict=True) if not bool(torch.isfinite(o.loss_sum))]
        who = _names(bad) if bad else "a batch of another process"
        raise SslbenchError(
            f"step {step}: the loss is not finite with {who}; nothing was updated; "
            "listen to these, or try precision: fp32 or a smaller lr"
        )


def _total(values: list[torch.Tensor]) -> torch.Tensor | float:
    return torch.stack([v.detach().to(torch.float64) for v in values]).sum() if values else 0.0


def _names(batches: list[PretrainBatch]) -> str:
    ids = [name for batch in batches for name in batch.ids]
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return "utterances " + ", ".join(ids[:SHOWN_IDS]) + more
