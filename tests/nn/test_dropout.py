"""Dropout by 16-bit draws, and attention with it: the right share, mean and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslbench.nn import dropout as module
from sslbench.nn.dropout import attention, dropout, keep_mask


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_share_and_mean(p: float) -> None:
    torch.manual_seed(0)
    keep, factor = keep_mask(torch.Size([400_003]), p, torch.device("cpu"))
    assert keep.dtype == torch.int8
    assert set(keep.unique().tolist()) == {0, 1}
    assert abs(float((keep == 0).float().mean()) - p) < 0.003
    assert factor == pytest.approx(1 / (1 - p), rel=1e-4)
    lag = (keep[1:] != keep[:-1]).float().mean()  # neighbours share a draw, but are independent
    assert abs(float(lag) - 2 * p * (1 - p)) < 0.005


def test_follows_torchs_generator_and_rests_in_eval() -> None:
    x = torch.ones(50)
    torch.manual_seed(3)
    first = dropout(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5, True), first)
    assert not torch.equal(dropout(x, 0.5, True), first)
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x


def test_gradient_is_the_mask() -> None:
    x = torch.randn(100, requires_grad=True)
    y = dropout(x, 0.3, True)
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad * x.detach(), y.detach())


@pytest.mark.parametrize("padded", [False, True])
def test_attention_equals_its_parts(monkeypatch: pytest.MonkeyPatch, padded: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 4, requires_grad=True) for _ in range(3))
    key_mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    key_mask[1, :, :, 5:] = not padded
    keep = (torch.rand(2, 3, 7, 7) > 0.4).to(torch.int8)
    slices = iter([keep[0, :2], keep[0, 2:], keep[1, :2], keep[1, 2:]])
    monkeypatch.setattr(module, "SLICE_SCORES", 2 * 7 * 7)
    monkeypatch.setattr(module, "keep_mask", lambda shape, p, device: (next(slices), 2.0))
    y = attention(q, k, v, key_mask if padded else None, 0.4)
    scores = (q @ k.transpose(2, 3) / 2).masked_fill(~key_mask, float("-inf"))
    parts = (scores.softmax(-1) * keep * 2.0) @ v
    torch.testing.assert_close(y, parts)
    probe = torch.randn_like(y)
    for a, b in zip(
        torch.autograd.grad((y * probe).sum(), (q, k, v)),
        torch.autograd.grad((parts * probe).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(y, F.scaled_dot_product_attention(q, k, v))
    assert y.transpose(1, 2).is_contiguous()  # what the next projection reads
