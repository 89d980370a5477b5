"""The processes of one training: who am I, and sums over all of us. Launched by torchrun, or alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist

from sslbench.device import pick_device, send


@dataclass(frozen=True)
class World:
    """This process among `size`, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, values: list[float | torch.Tensor]) -> list[float]:
        """Element-wise sums over all processes, in fp64; one wait for the device."""
        stacked = torch.stack([self._place(v).to(torch.float64) for v in values])
        if self.size > 1:
            dist.all_reduce(stacked)
        return [float(v) for v in stacked.tolist()]

    def _place(self, value: float | torch.Tensor) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            return send(value, self.device)
        return torch.full((), value, device=self.device)  # filled there: a copy would be waited for

    def share(self, value: int) -> int:
        """The main process's value, everywhere."""
        shared = torch.tensor([value], device=self.device)
        if self.size > 1:
            dist.broadcast(shared, src=0)
        return int(shared.item())

    def gather(self, state: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """Every process's small state, in the order of ranks; keys and shapes are the same everywhere."""
        gathered: list[dict[str, torch.Tensor]] = [{} for _ in range(self.size)]
        for name in sorted(state):
            own = state[name].to(self.device)
            plain = own.to(torch.uint8) if own.dtype == torch.bool else own  # backends lack bool
            parts = [torch.empty_like(plain) for _ in range(self.size)]
            if self.size > 1:
                dist.all_gather(parts, plain.contiguous())
            else:
                parts = [plain]
            for part, into in zip(parts, gathered, strict=True):
                into[name] = part.to(device="cpu", dtype=own.dtype)
        return gathered

    def wait(self) -> None:
        """Until everybody is here."""
        if self.size > 1:
            dist.barrier()


def launched_as() -> tuple[int, int]:
    """(rank, number of processes), as torchrun's environment variables say."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def leave() -> None:
    """Leave the training that `join` joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def join(device: str) -> World:
    """Join the training that torchrun's environment variables describe, or train alone.

    Args:
        device: "auto", "cpu", "cuda", or one GPU as "cuda:N".

    Raises:
        SslbenchError: the device is not there.
    """
    place, (rank, size) = pick_device(device), launched_as()
    gpu = place.type == "cuda"
    if gpu and place.index is None:
        place = pick_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    if gpu:
        torch.cuda.set_device(place)
        # torch's own default is TF32 for convolutions alone; fp32 is to mean fp32 in both
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if gpu else "gloo")
    return World(rank, size, place)
