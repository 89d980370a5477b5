"""The grid of heads that are linear up to the mean, as one stacked computation on cached layer means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.probe.grid import FrameGrid, Grid, make_optimizer, new_probe
from sslbench.probe.store import Store
from sslbench.probe.task import Example, ProbeTask
from sslbench.probe.utterance import MeanHead, UtteranceTask

EVAL_CLIPS = 512
NAMES = {
    "mix": "mix.weights",
    "inner": "head.projector.weight",
    "inner_bias": "head.projector.bias",
    "outer": "head.linear.weight",
    "outer_bias": "head.linear.bias",
}


class PooledGrid(Grid):
    """K probes with stacked weights: one matrix product does what K would, and torch's own optimizer
    updates each probe's slice with its own learning rate."""

    def __init__(
        self, task: UtteranceTask, store: Store, examples: Sequence[Example], lrs: Sequence[float], seed: int,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        """All probes from the same initial weights.

        Args:
            task: with a `MeanHead`.
            store: pooled.
            examples: by number.
            lrs: one per probe.
            seed: of the initial weights.
            device: where the heads train.
        """
        self.task, self.device = task, device
        readable = store.readable()
        means = [
            store.clip(n)[:, 0] if good else torch.zeros(store.layers, store.dim)
            for n, good in enumerate(readable)
        ]
        self.means = torch.stack(means).to(device)  # (N, L, D)
        self.targets = torch.tensor([example.target for example in examples], device=device)  # (N, slots)
        first = new_probe(task, store.layers, store.dim, seed).state_dict()
        self.weights = {
            key: torch.stack([first[name]] * len(lrs)).to(device).requires_grad_()
            for key, name in NAMES.items()
        }
        # leaves that share memory with the stacks, so that a group can have its own learning rate
        self.slices = [
            [nn.Parameter(stack.detach()[k]) for stack in self.weights.values()] for k in range(len(lrs))
        ]
        groups = [{"params": own, "lr": lr} for own, lr in zip(self.slices, lrs, strict=True)]
        self.optimizer = make_optimizer(task, groups, fused=True)
        self.skipped = [0] * len(lrs)

    def _logits(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B,) numbers → (K, B, C)."""
        w = self.weights
        means = self.means[numbers].transpose(0, 1)  # (L, B, D)
        mixed = (w["mix"].softmax(dim=1) @ means.flatten(1)).view(-1, *means.shape[1:])  # (K, B, D)
        hidden = torch.baddbmm(w["inner_bias"][:, None], mixed, w["inner"].transpose(1, 2))
        return torch.baddbmm(w["outer_bias"][:, None], hidden, w["outer"].transpose(1, 2))

    def update(self, numbers: Sequence[int], which: Sequence[int]) -> torch.Tensor:
        chosen = torch.tensor(numbers, device=self.device)
        losses = self.task.losses(self._logits(chosen), self.targets[chosen])
        grads = torch.autograd.grad(losses.sum(), list(self.weights.values()))
        norms = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)  # (K,)
        scale = (self.task.protocol.grad_clip / (norms + 1e-6)).clamp(max=1.0)
        finite = norms.isfinite().tolist()
        for index, grad in enumerate(grads):
            # torch 2.8's fused optimizer reads memory in order, whatever the strides say
            scaled = (grad * scale.view(-1, *[1] * (grad.dim() - 1))).contiguous()
            for k, own in enumerate(self.slices):
                # without a gradient torch leaves a parameter alone, as s3prl's runner does with NaN norms
                own[index].grad = scaled[k] if finite[k] and k in which else None
        for k in which:
            self.skipped[k] += not finite[k]
        self.optimizer.step()
        kept = torch.zeros(len(self.slices), dtype=torch.float64)
        kept[list(which)] = losses.detach().double().cpu()[list(which)]
        return kept

    def answers(self, numbers: Sequence[int], which: Sequence[int]) -> dict[int, dict[int, Any]]:
        found: dict[int, dict[int, Any]] = {k: {} for k in which}
        for start in range(0, len(numbers), EVAL_CLIPS):
            chosen = list(numbers[start : start + EVAL_CLIPS])
            with torch.inference_mode():
                logits = self._logits(torch.tensor(chosen, device=self.device))
            for k in which:
                decoded = self.task.decode(logits[k], torch.ones(len(chosen), dtype=torch.int64))
                found[k].update(zip(chosen, decoded, strict=True))
        return found

    def state(self, k: int) -> dict[str, torch.Tensor]:
        return {name: self.weights[key].detach()[k].cpu() for key, name in NAMES.items()}

    def load(self, k: int, state: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for key, name in NAMES.items():
                self.weights[key][k] = state[name].to(self.device)

    def snapshot(self) -> dict[str, Any]:
        return {
            "weights": {key: stack.detach() for key, stack in self.weights.items()},
            "optimizer": self.optimizer.state_dict(),
            "skipped": self.skipped,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        with torch.no_grad():
            for key, stack in self.weights.items():
                stack.copy_(snapshot["weights"][key])
        self.optimizer.load_state_dict(snapshot["optimizer"])
        self.skipped = snapshot["skipped"]

    def layer_shares(self, k: int) -> list[float]:
        return [float(share) for share in self.weights["mix"].detach()[k].softmax(dim=0)]


def make_grid(
    task: ProbeTask,
    store: Store,
    examples: Sequence[Example],
    lrs: Sequence[float],
    seed: int,
    device: str = "cpu",
) -> Grid:
    """The stacked computation for tasks on means, else K probes over shared batches.

    Raises:
        SslbenchError: a task on means whose head is not linear up to the mean, so that frames matter.
    """
    if not task.pooled:
        return FrameGrid(task, store, examples, lrs, seed, device)
    if not isinstance(task, UtteranceTask) or type(task.head(store.dim)) is not MeanHead:
        raise SslbenchError(
            f"{task.name}: its head is no MeanHead, so means over time do not serve it; set pooled = False"
        )
    return PooledGrid(task, store, examples, lrs, seed, device)
