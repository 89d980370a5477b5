"""Notices early that a training goes wrong: loss spikes, exploding gradients, dead or exploding layers."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.train.dist import World
from sslbench.train.layers import is_compiled, layers_of

WINDOW = 100  # updates that a new one is compared with
TRUSTED_FROM = 30  # updates
SPIKE_SIGMAS = 8.0  # above the median, by the median absolute deviation
SPIKE_SHARE = 0.1  # and by this share of the median, since calm losses have tiny deviations
NORM_FACTOR = 100.0  # times the median gradient norm
PATIENCE = 5  # updates in a row
LOOK_EVERY = 50  # updates between looks at activations
DEAD_SHARE = 1e-4  # of the rms: frames differ by less
SILENT_RMS = 1e-8
EXPLODED_RMS, EXPLODED_FACTOR = 1e4, 300.0  # at all, or over the first look


class UnstableError(SslbenchError):
    """Training goes wrong since some update."""

    def __init__(self, message: str, healthy_step: int) -> None:
        super().__init__(message)
        self.healthy_step = healthy_step
        """Updates after which all still looked well."""


class Watchdog:
    """Judges every update's loss and gradient norm against the recent ones, and now and then every layer.

    Single outliers are the optimizer's to clip; five in a row are an alarm. Its memory is part of a run's
    state, so that a resumed run raises the same alarms.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self.world = world
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.norms: deque[float] = deque(maxlen=WINDOW)
        self.first_rms: dict[str, float] = {}
        self.bad = 0
        self.healthy_step = 0
        self._layers = {name: layer for name, layer in layers_of(model).items() if not is_compiled(layer)}

    @contextmanager
    def looking(self, step: int) -> Iterator[dict[str, torch.Tensor]]:
        """Measure the layers' outputs within, if update `step` is one to look at: name -> (rms, spread)."""
        seen: dict[str, torch.Tensor] = {}
        handles = []
        if step % LOOK_EVERY == 0:
            for name, layer in self._layers.items():
                handles.append(layer.register_forward_hook(_measure(name, seen)))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def judge(
        self, step: int, loss: float, grad_norm: float, seen: dict[str, torch.Tensor], ids: list[str]
    ) -> None:
        """Take in the update that made it `step`, the same on every process but for `seen` and `ids`.

        Raises:
            UnstableError: an alarm.
        """
        self._judge_layers(step, seen)
        reason = self._spike(loss, grad_norm)
        if reason is None:
            self.bad, self.healthy_step = 0, step
            self.losses.append(loss)
            self.norms.append(grad_norm)
            return
        self.bad += 1
        if self.bad >= PATIENCE:
            raise UnstableError(
                f"step {step}: {reason}, for {self.bad} updates in a row; the last was made of "
                + ", ".join(ids[:16]),
                self.healthy_step,
            )

    def _spike(self, loss: float, grad_norm: float) -> str | None:
        if len(self.losses) < TRUSTED_FROM:
            return None
        middle = statistics.median(self.losses)
        deviation = 1.4826 * statistics.median(abs(value - middle) for value in self.losses)
        limit = middle + max(SPIKE_SIGMAS * deviation, SPIKE_SHARE * abs(middle))
        if loss > limit:
            return f"the loss is {loss:.4g}, above {limit:.4g} (recent median {middle:.4g})"
        usual = statistics.median(self.norms)
        if grad_norm > NORM_FACTOR * usual:
            return f"the gradient norm is {grad_norm:.3g}, {grad_norm / usual:.0f} times the recent median"
        return None

    def _judge_layers(self, step: int, seen: dict[str, torch.Tensor]) -> None:
        if not self._layers or (step - 1) % LOOK_EVERY:
            return
        faults = []
        for name, measured in seen.items():
            rms, spread = measured.tolist()
            first = self.first_rms.setdefault(name, rms)
            if not rms < min(EXPLODED_RMS, EXPLODED_FACTOR * max(first, SILENT_RMS)):
                faults.append(f"{name} explodes: rms {rms:.3g}, {first:.3g} at first")
            elif rms < SILENT_RMS or spread < DEAD_SHARE * rms:
                faults.append(f"{name} is dead: every frame alike (rms {rms:.3g}, spread {spread:.3g})")
        if self.world.sum([float(bool(faults))])[0]:
            what = "; ".join(faults[:4]) or "a layer of another process"
            raise UnstableError(f"step {step}: {what}", max(0, min(self.healthy_step, step - LOOK_EVERY)))

    def state_dict(self) -> dict[str, Any]:
        """What alarms depend on."""
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "first_rms": dict(self.first_rms),
            "bad": self.bad,
            "healthy_step": self.healthy_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.losses = deque(state["losses"], maxlen=WINDOW)
        self.norms = deque(state["norms"], maxlen=WINDOW)
        self.first_rms, self.bad = dict(state["first_rms"]), state["bad"]
        self.healthy_step = state["healthy_step"]


def _measure(name: str, seen: dict[str, torch.Tensor]) -> Any:
    @torch.no_grad()
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        frames = first.detach().float().flatten(0, -2)  # (frames of all clips, D)
        seen[name] = torch.stack([frames.square().mean().sqrt(), frames.std(0).mean()])

    return hook
