"""K probes, one per learning rate, that learn in lock-step from the same batches."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from sslbench.probe.model import Probe
from sslbench.probe.store import Store
from sslbench.probe.task import Example, ProbeTask

EVAL_CLIPS = 32


def new_probe(task: ProbeTask, layers: int, dim: int, seed: int) -> Probe:
    """A probe whose initial weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Probe(layers, task.head(dim))


def make_optimizer(
    task: ProbeTask, groups: list[dict[str, Any]], fused: bool = False
) -> torch.optim.Optimizer:
    """The protocol's optimizer; each group states its `lr`."""
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[task.protocol.optimizer](groups, fused=fused)


class Grid(ABC):
    """The probes of a grid. Numbers are positions in `examples` and in the store."""

    skipped: list[int]
    """Updates left out per probe because the gradient was not finite."""

    @abstractmethod
    def update(self, numbers: Sequence[int], which: Sequence[int]) -> torch.Tensor:
        """One step of the probes `which` on a batch → (K,) losses, 0 for the others."""

    @abstractmethod
    def answers(self, numbers: Sequence[int], which: Sequence[int]) -> dict[int, dict[int, Any]]:
        """`task.decode` of the probes `which`, in eval mode: probe → number → answer."""

    @abstractmethod
    def state(self, k: int) -> dict[str, torch.Tensor]:
        """The state dict of a probe (`Probe`'s names); may alias living weights."""

    @abstractmethod
    def load(self, k: int, state: dict[str, torch.Tensor]) -> None:
        """Put a state back."""

    @abstractmethod
    def snapshot(self) -> dict[str, Any]:
        """Everything that training changes, as tensors and plain values; may alias living weights."""

    @abstractmethod
    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put a snapshot back."""

    @abstractmethod
    def layer_shares(self, k: int) -> list[float]:
        """What each layer contributes to a probe; sums to one."""


class FrameGrid(Grid):
    """Any head: features are fetched once per batch, and every layer is read once, for all probes."""

    def __init__(
        self, task: ProbeTask, store: Store, examples: Sequence[Example], lrs: Sequence[float], seed: int,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        """One probe per learning rate, all from the same initial weights."""
        self.task, self.store, self.examples, self.device = task, store, examples, device
        self.probes = [new_probe(task, store.layers, store.dim, seed).to(device) for _ in lrs]
        self.optimizers = [
            make_optimizer(task, [{"params": list(probe.parameters()), "lr": lr}])
            for probe, lr in zip(self.probes, lrs, strict=True)
        ]
        self.skipped = [0] * len(lrs)
        self._seed, self._updates = seed, 0

    def _batch(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        states, lens = self.store.batch(numbers)
        return states.to(self.device), lens.to(self.device)

    def _mixed(self, states: torch.Tensor, which: Sequence[int]) -> torch.Tensor:
        """(L, B, F, D) → (K, B, F, D): all probes' weighted sums from one reading of the layers."""
        shares = torch.stack([self.probes[k].mix.weights.softmax(dim=0) for k in which])
        return (shares @ states.flatten(1)).view(len(which), *states.shape[1:])

    def update(self, numbers: Sequence[int], which: Sequence[int]) -> torch.Tensor:
        states, lens = self._batch(numbers)
        targets = [self.examples[n].target for n in numbers]
        losses = torch.zeros(len(self.probes), dtype=torch.float64)
        mixed = self._mixed(states, which)
        per_probe = []
        self._updates += 1
        for k, features in zip(which, mixed, strict=True):
            # the same dropout for all probes: a learning rate's result does not depend on the others
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._seed * 1_000_003 + self._updates)
                per_probe.append(self.task.loss(self.probes[k].head(features, lens), lens, targets))
            self.optimizers[k].zero_grad(set_to_none=True)
        # probes share no weights, so the gradient of the sum is each one's own
        torch.stack(per_probe).sum().backward()
        for k, loss in zip(which, per_probe, strict=True):
            losses[k] = float(loss.detach())
            self._step(k)
        return losses

    def _step(self, k: int) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.probes[k].parameters(), self.task.protocol.grad_clip)
        # s3prl's runner leaves such updates out too; here they are counted
        if math.isfinite(float(norm)):
            self.optimizers[k].step()
        else:
            self.skipped[k] += 1

    def answers(self, numbers: Sequence[int], which: Sequence[int]) -> dict[int, dict[int, Any]]:
        found: dict[int, dict[int, Any]] = {k: {} for k in which}
        ordered = sorted(numbers, key=lambda n: self.examples[n].cut.duration)
        for k in which:
            self.probes[k].eval()
        for start in range(0, len(ordered), EVAL_CLIPS):
            chosen = ordered[start : start + EVAL_CLIPS]
            states, lens = self._batch(chosen)
            with torch.inference_mode():
                for k, features in zip(which, self._mixed(states, which), strict=True):
                    decoded = self.task.decode(self.probes[k].head(features, lens), lens)
                    found[k].update(zip(chosen, decoded, strict=True))
        for k in which:
            self.probes[k].train()
        return found

    def state(self, k: int) -> dict[str, torch.Tensor]:
        return self.probes[k].state_dict()

    def load(self, k: int, state: dict[str, torch.Tensor]) -> None:
        self.probes[k].load_state_dict(state)

    def snapshot(self) -> dict[str, Any]:
        return {
            "probes": [dict(probe.state_dict()) for probe in self.probes],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "skipped": self.skipped,
            "updates": self._updates,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        for k, state in enumerate(snapshot["probes"]):
            self.load(k, state)
        for optimizer, state in zip(self.optimizers, snapshot["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.skipped, self._updates = snapshot["skipped"], snapshot["updates"]

    def layer_shares(self, k: int) -> list[float]:
        return self.probes[k].layer_shares()
