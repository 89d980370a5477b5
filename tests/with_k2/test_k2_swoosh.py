"""Our activations against the real k2's: `make test-k2` runs this where k2 can be installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sslbench.integrations import k2 as integration
from sslbench.nn import swoosh as module
from sslbench.nn.swoosh import LEFT, RIGHT, SwooshLinear, swoosh, swoosh_and_slope

pytestmark = pytest.mark.skipif(
    not integration.available(), reason="k2 is not installed; make test-k2 makes its environment"
)


@pytest.fixture(autouse=True)
def _without_onednn() -> Iterator[None]:
    """Its conv1d backward is wrong in torch 1.13.1 on CPUs with AVX-512 BF16."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.fixture
def fused() -> integration.Kernels:
    found = integration.load()
    assert found is not None, "k2 is installed but its kernels do not load"
    return found


@pytest.mark.parametrize("shape", [LEFT, RIGHT])
def test_values_and_slopes_equal_k2s(
    monkeypatch: pytest.MonkeyPatch, fused: integration.Kernels, shape: tuple[float, float]
) -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.linspace(-30, 30, 20001), 4 * torch.randn(20000)])
    monkeypatch.setattr(module, "kernels", lambda x: None)
    ours, slope = swoosh_and_slope(x, shape)
    theirs, their_slope = fused.value_and_slope(x, left=shape == LEFT)
    size = ours.abs().clamp(min=1)  # values go up to 27, whose own rounding is above 1e-6
    assert float(((ours - theirs).abs() / size).max()) <= 1e-6
    assert float((slope - their_slope).abs().max()) <= 1e-6
    assert float(((fused.value(x, left=shape == LEFT) - ours).abs() / size).max()) <= 1e-6
    other = RIGHT if shape == LEFT else LEFT
    assert float((swoosh(x, other) - theirs).abs().max()) > 0.1


@pytest.mark.parametrize("shape", [LEFT, RIGHT])
def test_the_fused_layer_is_the_same_with_k2s_kernels(
    monkeypatch: pytest.MonkeyPatch, fused: integration.Kernels, shape: tuple[float, float]
) -> None:
    torch.manual_seed(0)
    layer = SwooshLinear(48, 32, shape).eval()
    x = (3 * torch.randn(2, 50, 48)).requires_grad_()

    def run() -> list[torch.Tensor]:
        y = layer(x)
        return [y, *torch.autograd.grad(y.square().mean(), [x, layer.weight, layer.bias])]

    theirs = run()
    calls: list[Tensor] = []
    monkeypatch.setattr(module, "kernels", lambda x: calls.append(x))
    for a, b in zip(theirs, run(), strict=True):
        assert calls
        assert float((a - b).detach().abs().max()) <= 1e-6 * max(1.0, float(a.detach().abs().max()))
