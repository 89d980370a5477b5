"""Precision, groups, recomputation, averages, rates and randomness, each alone."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.nn.upstream import PretrainBatch
from sslbench.train.average import RunningAverage, average_between
from sslbench.train.groups import parameter_groups
from sslbench.train.layers import layers_of, recompute_activations
from sslbench.train.precision import Precision
from sslbench.train.randomness import derive, seed_everything
from sslbench.train.schedule import cosine, polynomial
from sslbench.upstreams import build_model

CPU = torch.device("cpu")
TINY: dict[str, dict[str, Any]] = {
    "hubert_k2ssl_tiny": {"layers": 3, "num_units": 7, "dropout": 0.2},
    "zipformer_tiny": {"num_units": 7},
}


def test_the_fp16_scale_follows_k2ssl_s_rules() -> None:
    precision = Precision("fp16", CPU)
    for step in range(99):
        precision.adjust(step, finite=True)
    assert precision.scale == 1.0
    precision.adjust(99, finite=True)  # every 100 while below 8
    assert precision.scale == 2.0
    for step in range(100, 1000):
        precision.adjust(step, finite=True)
    assert precision.scale == 8.0
    precision.adjust(1000, finite=False)
    assert precision.scale == 4.0
    for step in range(1001, 3100):
        precision.adjust(step, finite=True)
    assert precision.scale == 16.0  # 8 again at 1,099, and 16 after 2,000 good updates


def test_a_vanishing_scale_warns_then_stops(capsys: pytest.CaptureFixture[str]) -> None:
    precision = Precision("fp16", CPU)
    for step in range(16):
        precision.adjust(step, finite=False)
    with pytest.raises(SslbenchError, match=r"step 16: the gradient scale fell to 7.6e-06: .*bf16"):
        precision.adjust(16, finite=False)
    assert capsys.readouterr().err.count("warning: step 6: the gradient scale is only 7.8e-03") == 1


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_only_fp16_is_scaled(name: str) -> None:
    precision = Precision(name, CPU)
    for step in range(200):
        precision.adjust(step, finite=step % 2 == 0)
    assert precision.scale == 1.0
    with precision.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def test_groups_by_name() -> None:
    model = nn.ModuleDict({"front": nn.Linear(3, 3), "norm": nn.LayerNorm(3), "head": nn.Linear(3, 2)})
    groups = parameter_groups(
        model.named_parameters(), 0.01, {"front.*": 0.1, "*.weight": 0.5}, no_decay=["head.weight"]
    )
    seen = {name: (g["lr_scale"], g["weight_decay"]) for g in groups for name in g["names"]}
    assert seen == {
        "front.weight": (0.1, 0.01), "front.bias": (0.1, 0.0), "norm.weight": (0.5, 0.0),
        "norm.bias": (1.0, 0.0), "head.weight": (0.5, 0.0), "head.bias": (1.0, 0.0),
    }  # fmt: skip
    with pytest.raises(SslbenchError, match=r"no parameter's name fits body\.\*"):
        parameter_groups(model.named_parameters(), 0.01, {"body.*": 0.1})


def batch() -> PretrainBatch:
    generator = torch.Generator().manual_seed(3)
    lens = torch.tensor([16_000, 12_000])
    audio = 0.1 * torch.randn(2, 16_000, generator=generator)
    labels = torch.randint(0, 7, (2, 50), generator=generator)
    return PretrainBatch(audio, lens, labels, ["a", "b"])


def gradients(model: nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    torch.manual_seed(5)
    model.mask_generator.manual_seed(5)  # type: ignore[operator, union-attr]
    output = model(batch())
    output.loss_sum.backward()
    return float(output.loss_sum.detach()), {
        n: p.grad for n, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("preset", sorted(TINY))
def test_recomputation_changes_neither_loss_nor_gradients(preset: str) -> None:
    torch.manual_seed(1)
    plain = build_model(preset, TINY[preset]).train()
    saving = copy.deepcopy(plain)
    recompute_activations(saving)
    calls = []
    next(iter(layers_of(saving).values())).register_forward_pre_hook(lambda *_: calls.append(1))
    loss, grads = gradients(plain)
    again, same = gradients(saving)
    assert again == loss
    assert grads.keys() == same.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(same[name], grad, rtol=1e-6, atol=1e-8, msg=name)
    assert len(grads) > 20
    assert calls == [1]


def test_recomputation_saves_what_layers_keep() -> None:
    def kept_bytes(model: nn.Module) -> int:
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.__setitem__(t.data_ptr(), t.numel()), t)[1], lambda t: t
        ):
            model(batch())
        return 4 * sum(sizes.values())

    torch.manual_seed(1)
    model = build_model("hubert_k2ssl_tiny", TINY["hubert_k2ssl_tiny"]).train()
    before = kept_bytes(model)
    recompute_activations(model)
    assert kept_bytes(model) < 0.9 * before


def test_a_model_without_layers_says_so() -> None:
    with pytest.raises(SslbenchError, match="Linear has no ModuleList 'layers'"):
        recompute_activations(nn.Linear(2, 2))


def test_cosine_warms_up_and_ends_at_its_floor() -> None:
    rates = [cosine(step, 100, 10) for step in range(101)]
    assert rates[9] == rates[10] == 1.0 == max(rates)
    assert rates[55] == pytest.approx(0.505)
    assert rates[100] == pytest.approx(0.01)
    assert [cosine(step, 100, 10, floor=1.0) for step in (0, 10, 60, 100)] == [0.1, 1.0, 1.0, 1.0]


def test_polynomial_warms_up_and_ends_at_zero() -> None:
    rates = [polynomial(step, 400, 32, 1.0) for step in range(401)]
    assert rates[31] == 1.0 == max(rates)
    assert rates[0] == pytest.approx(1 / 32)
    assert rates[216] == pytest.approx(0.5)
    assert rates[400] == 0.0


def test_average_between_leaves_the_early_weights_out() -> None:
    values = [{"w": torch.tensor([float(step)]), "n": torch.tensor(step)} for step in range(1, 11)]
    running = RunningAverage({"w": torch.zeros(1), "n": torch.tensor(0)}, every=1)
    kept = {}
    for step, value in enumerate(values, 1):
        running.update(lambda now=value: now, step)
        assert running.value is not None
        kept[step] = {name: t.clone() for name, t in running.value.items()}
    assert kept[10]["w"].item() == pytest.approx(5.5)
    between = average_between(kept[4], 4, kept[10], 10)
    assert between["w"].item() == pytest.approx(sum(range(5, 11)) / 6)
    assert between["n"].item() == 10


def test_randomness_depends_on_the_place_only() -> None:
    model = nn.Module()
    model.generator = torch.Generator()  # type: ignore[assignment]
    model.dice = random.Random()  # type: ignore[assignment]

    def draw(*place: int | str) -> tuple[float, ...]:
        seed_everything(model, 7, *place)
        held = torch.rand(1, generator=model.generator).item(), model.dice.random()  # type: ignore[operator, arg-type]
        return (random.random(), float(np.random.rand()), torch.rand(1).item(), *held)

    first = draw("batch", 1)
    other = draw("batch", 2)
    assert draw("batch", 1) == first
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert len({derive(s, "batch", i) for s in range(10) for i in range(1000)}) == 10_000
