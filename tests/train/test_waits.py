"""On a GPU an update makes the host wait twice, whatever the model: for its loss and for its gradient's norm.

Tensors without values (`meta`) stand for the GPU's: reading one is a wait. So are copies between it and the
host, unless they are asked for as `non_blocking`. Not seen: the copy inside `torch.tensor(value, device=…)`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sslbench.data.loading import AudioBatch
from sslbench.pretrain.config import PretrainConfig
from sslbench.pretrain.optimizer import make_updater
from sslbench.pretrain.trainer import PretrainJob
from sslbench.train.dist import World
from sslbench.train.precision import Precision
from sslbench.train.update import UpdateMaker
from sslbench.upstreams import build_model

DEVICE = torch.device("meta")
WAITS = 2  # the sums of `World.sum`, before the gradient is scaled; its norm, before the weights change
UPDATES = 2
TWO_STACKS = {
    "downsampling": [1, 2], "layers": [1, 1], "dims": [64, 64], "unmasked_dims": [64, 64],
    "ffn_dims": [64, 64], "heads": [4, 4], "kernels": [7, 7],
}  # fmt: skip
MODELS: list[tuple[str, dict[str, Any], str]] = [
    ("zipformer_tiny", TWO_STACKS, "scaled_adam"),
    ("hubert_k2ssl_tiny", {"layers": 2, "layerdrop": 0.1}, "adamw"),
    ("fast_hubert_tiny", {"layers": 2, "predict_layers": [1, 2]}, "adamw"),
    ("hubert_orig_base", {"layers": 1, "dim": 64, "ffn_dim": 64, "heads": 2}, "adamw"),
]
aten = torch.ops.aten


class Waits(TorchDispatchMode):
    """Notes every wait, and answers with ones. What it does not know, such as indexing by a mask, fails."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        device = any(x.is_meta for x in tensors)
        if func is aten._to_copy.default:
            target = torch.device(kwargs.get("device") or args[0].device)
            if target.type != args[0].device.type and not kwargs.get("non_blocking"):
                self.seen.append(f"copy from {args[0].device} to {target}")
            if device and target.type == "cpu":
                return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if device and func in (aten._local_scalar_dense.default, aten.is_nonzero.default):
            self.seen.append(str(func))
            return torch.ones((), dtype=args[0].dtype).item()
        if device and func is aten.nonzero.default:
            self.seen.append(str(func))
            return torch.zeros(5, args[0].ndim, dtype=torch.int64, device=DEVICE)
        if func is aten._weight_norm_interface_backward.default:  # has no kernel for tensors without values
            return torch.empty_like(args[1]), torch.empty_like(args[2])
        return func(*args, **kwargs)


def job_of(name: str, changes: dict[str, Any], optimizer: Any, **settings: Any) -> PretrainJob:
    job = PretrainJob.__new__(PretrainJob)  # without data
    job.config = PretrainConfig(
        upstream=name, exp_dir="-", train_manifest="-", optimizer=optimizer, max_steps=UPDATES, **settings
    )
    job.world = World(0, 1, DEVICE)
    job.model = build_model(name, {"num_units": 7, "feature_penalty": 1.0, **changes}).to(DEVICE)
    job.updater = make_updater(job.model, job.config, 1)
    return job


def raw_batch() -> AudioBatch:
    lens = [16_000, 12_000]
    cuts: Any = [
        SimpleNamespace(id=str(n), duration=n / 16_000, custom={"kmeans": "3 " * (n // 320)}) for n in lens
    ]
    return AudioBatch(torch.randn(2, max(lens)), torch.tensor(lens), cuts)


def waits_of(job: PretrainJob) -> list[str]:
    """Waits of some updates, from batches on the host to new weights."""
    make = UpdateMaker(job, job.world, job.config.loop_settings(), Precision("fp32", torch.device("cpu")))
    with Waits() as waits:
        for step in range(UPDATES):
            batches = [job.collate(raw_batch()) for _ in range(job.config.accum)]
            job.before_update(step)
            make(step, batches, stop=False)
    return waits.seen


@pytest.mark.parametrize(("name", "changes", "optimizer"), MODELS)
def test_an_update_waits_for_its_loss_and_its_norm_alone(
    name: str, changes: dict[str, Any], optimizer: str
) -> None:
    found = waits_of(job_of(name, changes, optimizer, accum=2))
    assert len(found) == WAITS * UPDATES, found


@pytest.mark.parametrize(
    "read",
    [
        lambda loss, _: loss.item(),
        lambda _, correct: bool(correct),
        lambda loss, _: loss.cpu(),
        lambda loss, _: loss.view(1).nonzero(),
        lambda loss, _: torch.ones(1).to(loss.device),
    ],
)
def test_what_a_layer_waits_for_is_counted(read: Any) -> None:
    job = job_of(*MODELS[1])

    def hook(*found: Any) -> None:
        read(*found[2])

    job.model.final_proj.register_forward_hook(hook)
    assert len(waits_of(job)) == (WAITS + 1) * UPDATES
