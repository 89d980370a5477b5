"""Zipformer's attention against the plain formulas that its hand-written gradients stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sslbench.nn.strided import CHUNK_VALUES
from sslbench.upstream.zipformer.attention import AttentionWeights, SelfAttention, relative_positions, share

BATCH, FRAMES, DIM, HEADS = 2, 9, 16, 4


def gradients(compute: Callable[[Tensor], Tensor], x: Tensor, module: torch.nn.Module) -> list[Tensor]:
    """Output and gradients, of the input and of all weights, of a weighted sum of the output."""
    x = x.clone().requires_grad_()
    y = compute(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])]


def furthest(found: list[Tensor], wanted: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(BATCH, FRAMES, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("limit", [1, 3 * 2 * FRAMES**2, 1 << 21], ids=["one_by_one", "by_three", "at_once"])
def test_weights_are_those_of_the_formula(x: Tensor, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK_VALUES, "cpu", limit)
    torch.manual_seed(0)
    module = AttentionWeights(DIM, 8, HEADS, 6, 3).double().eval()
    positions = relative_positions(FRAMES, 8).double()

    def plain(x: Tensor, shift: int = 0) -> Tensor:
        query, key, where = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in module.in_proj(x).split([6 * HEADS, 6 * HEADS, 3 * HEADS], dim=-1)
        )
        offsets = module.linear_pos(positions).unflatten(-1, (HEADS, -1))  # (2T - 1, H, p)
        frame = torch.arange(FRAMES)
        index = (frame[None] - frame[:, None] + FRAMES - 1 + shift).clamp(0, 2 * FRAMES - 2)  # (T, T)
        relative = torch.einsum("bhtp,tshp->bhts", where, offsets[index])
        return (query @ key.transpose(2, 3) + relative).softmax(-1)

    found = gradients(lambda x: module(x, positions, None), x, module)
    assert furthest(found, gradients(plain, x, module)) < 1e-12
    assert furthest(found, gradients(lambda x: plain(x, shift=1), x, module)) > 1e-6  # the wrong offsets


def test_shared_weights_gather_the_gradients_of_all_users(x: Tensor) -> None:
    torch.manual_seed(0)
    module = SelfAttention(DIM, HEADS, 5).double().eval()
    scores = torch.randn(BATCH, HEADS, FRAMES, FRAMES, dtype=torch.float64)

    def use(first_head: Tensor, once: Tensor, twice: Tensor) -> Tensor:
        y = module(first_head @ x, once)
        return module(y, twice) * y

    def mixed_plainly(x: Tensor, weights: Tensor) -> Tensor:
        values = module.in_proj(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        return module.out_proj((weights @ values).transpose(1, 2).flatten(2))

    def plain(scores: Tensor, head: int = 0) -> Tensor:
        weights = scores.softmax(-1)
        y = mixed_plainly(weights[:, head] @ x, weights)
        return mixed_plainly(y, weights) * y

    found = gradients(lambda s: use(*share(s.softmax(-1))), scores, module)
    assert furthest(found, gradients(plain, scores, module)) < 1e-12
    assert furthest(found, gradients(lambda s: plain(s, head=1), scores, module)) > 1e-6
