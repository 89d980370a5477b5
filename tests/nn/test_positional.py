"""The positional convolution with channels last equals the operator, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from sslbench.nn.positional import positional


def by_operator(x: torch.Tensor, conv: nn.Conv1d) -> torch.Tensor:
    return conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)


@pytest.mark.parametrize(("kernel", "frames"), [(8, 21), (7, 21), (8, 3), (1, 5)])
def test_outputs_and_gradients_equal_the_operators(kernel: int, frames: int) -> None:
    torch.manual_seed(0)
    conv = weight_norm(nn.Conv1d(12, 12, kernel, padding=kernel // 2, groups=3), dim=2)
    x = torch.randn(2, frames, 12, requires_grad=True)
    ours, theirs = positional(x, conv), by_operator(x, conv)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    leaves, probe = [x, *conv.parameters()], torch.randn_like(ours)
    found, wanted = (torch.autograd.grad((y * probe).sum(), leaves) for y in (ours, theirs))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=1e-5)
    with torch.no_grad():
        conv.parametrizations.weight.original1[5, 1, kernel // 2] += 0.1
        assert not torch.allclose(positional(x, conv), theirs, atol=1e-5)


def test_under_autocast_stays_close() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv1d(12, 12, 8, padding=4, groups=3), torch.randn(2, 30, 12)
    exact = positional(x, conv)
    with torch.autocast("cpu", torch.bfloat16):
        y = positional(x, conv)
    assert y.dtype == torch.bfloat16
    assert float((y - exact).abs().max().detach()) < 0.02 * float(exact.abs().max().detach())
    y.float().square().sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32


def test_hubert_base_reads_nothing_uninitialised_under_autocast() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv1d(768, 768, 128, padding=64, groups=16), torch.randn(1, 100, 768)
    x.requires_grad_()
    exact = positional(x, conv)
    for _ in range(3):
        junk = [torch.full((size,), float("nan")) for size in (40_000, 300_000, 5_000_000) for _ in range(4)]
        del junk  # memory that the next tensors get
        with torch.autocast("cpu", torch.bfloat16):
            y = positional(x, conv)
        torch.testing.assert_close(y.float(), exact, atol=0.02, rtol=0)
        found = torch.autograd.grad(y.float().square().sum(), [x, *conv.parameters()])
        assert all(gradient.isfinite().all() for gradient in found)
