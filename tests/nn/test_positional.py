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


def test_autocast_narrows_the_product_and_stays_close() -> None:
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
