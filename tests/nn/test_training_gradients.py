"""Swoosh, BiasNorm, Balancer, Whiten and schedules without reference to anyone's recordings."""

import pytest
import torch

from sslbench.nn.balancer import Balancer
from sslbench.nn.biasnorm import BiasNorm, limit_value
from sslbench.nn.scheduled import ScheduledFloat, chance, named_schedules, set_batch_counts
from sslbench.nn.swoosh import LEFT, RIGHT, SwooshLinear, swoosh_l, swoosh_r
from sslbench.nn.whiten import Whiten, load_whiten_state, whiten_state, whitening_metric


def test_swoosh_values():
    x = torch.tensor([-1000.0, 0.0, 3.0, 1000.0])
    exact = torch.log1p((x.double() - 4).clamp(max=700).exp()) - 0.08 * x.double() - 0.035
    assert torch.allclose(swoosh_l(x)[:3].double(), exact[:3], atol=1e-5)
    assert float(swoosh_l(x)[3]) == pytest.approx(1000 - 4 - 80 - 0.035, abs=1e-3)
    assert float(swoosh_r(torch.zeros(()))) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("shape", [LEFT, RIGHT])
def test_fused_swoosh_equals_its_parts(shape):
    torch.manual_seed(0)
    layer = SwooshLinear(6, 4, shape, dropout=0.5, initial_scale=0.5).train()
    x = torch.randn(2, 5, 6, requires_grad=True)
    torch.manual_seed(1)
    y = layer(x)
    y.square().sum().backward()
    found = [x.grad, layer.weight.grad, layer.bias.grad]
    torch.manual_seed(1)
    keep = (torch.rand(2, 1, 6) > 0.5) * 2.0
    parts = torch.nn.functional.linear(
        (swoosh_l(x) if shape == LEFT else swoosh_r(x)) * keep, layer.weight, layer.bias
    )
    assert torch.allclose(y, parts, atol=1e-6)
    wanted = torch.autograd.grad(parts.square().sum(), [x, layer.weight, layer.bias])
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_biasnorm_gradient_is_that_of_its_formula():
    torch.manual_seed(0)
    norm = BiasNorm(6).eval()
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(3, 4, 6, requires_grad=True)
    wanted = x * norm.log_scale.exp() / (x - norm.bias).square().mean(-1, keepdim=True).sqrt()
    assert torch.allclose(norm(x), wanted, atol=1e-6)
    inputs = [x, norm.bias, norm.log_scale]
    probe = torch.randn(3, 4, 6)
    found = torch.autograd.grad((norm(x) * probe).sum(), inputs)
    for a, b in zip(found, torch.autograd.grad((wanted * probe).sum(), inputs), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def penalty_by_autograd(x: torch.Tensor) -> torch.Tensor:
    """A Balancer's penalty for limits mean / std in ±0.1 and rms in [1.25, 2.5], as its paper states it."""
    mean, std, rms = x.mean(0), x.std(0, unbiased=False), x.square().mean(0).sqrt()
    m = mean / std
    loss = (m - m.clamp(-0.1, 0.1)).abs() + (rms.clamp(1.25, 2.5) / rms).log().abs()
    (g,) = torch.autograd.grad(loss.sum(), x)
    return 0.04 * g / g.square().mean(0).sqrt().clamp(min=1e-20)


def test_balancer_adds_the_gradient_of_its_penalty(monkeypatch):
    monkeypatch.setattr("sslbench.nn.balancer._relative_mean", lambda p: 0.1 if p > 0.5 else -0.1)
    monkeypatch.setattr("math.pi", 2.0)  # makes mean absolute value and rms the same
    torch.manual_seed(0)
    x = torch.randn(50, 5)
    x = (x - x.mean(0)) / x.std(0, unbiased=False)
    x = (
        x * torch.tensor([0.1, 1.5, 1.5, 9.0, 0.5]) + torch.tensor([0.0, 0.0, 1.0, 0.0, 2.0])
    ).requires_grad_()
    g = torch.randn(50, 5)
    Balancer(0.4, 0.6, 1.25, 2.5, share=1.0).train()(x).backward(g)
    wanted = g + g.abs() * penalty_by_autograd(x.detach().requires_grad_())
    assert torch.allclose(x.grad, wanted, atol=1e-5)
    assert torch.equal(x.grad[:, 1], g[:, 1])  # within its limits
    assert not torch.allclose(x.grad, g)


def test_whiten_follows_the_gradient_of_its_metric():
    torch.manual_seed(0)
    x = (torch.randn(40, 6) @ torch.randn(6, 6)).requires_grad_()
    g = torch.randn(40, 6)
    Whiten(1.0, groups=2, strength=0.5, shares=(1.0, 1.0)).train()(x).backward(g)
    (slope,) = torch.autograd.grad(whitening_metric(x, 2), x)
    wanted = g + slope * 0.5 * g.norm() / slope.norm()
    assert torch.allclose(x.grad, wanted, atol=1e-4)


def test_whiten_remembers_whether_it_was_needed():
    whiten = Whiten(1e6, shares=(0.0, 1.0)).train()
    x = torch.randn(10, 4, requires_grad=True)
    assert whiten_state(whiten).tolist() == [True]
    whiten(x).sum().backward()
    assert whiten_state(whiten).tolist() == [False]
    assert whiten(x) is x
    load_whiten_state(whiten, torch.tensor([True]))
    assert whiten(x) is not x


def test_eval_and_no_grad_leave_everything_alone():
    x = torch.randn(10, 4, requires_grad=True)
    for module in (Balancer(share=1.0), Whiten(1.0, shares=(1.0, 1.0))):
        assert module.eval()(x) is x
        assert module.train()(x.detach()).requires_grad is False


def test_limits_turn_gradients_inwards():
    x = torch.tensor([-2.0, -2.0, 0.0, 2.0, 2.0], requires_grad=True)
    limit_value(x, -1.0, 1.0).backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert x.grad.tolist() == [-1.0, -1.0, 1.0, 1.0, 1.0]


def test_schedules():
    schedule = ScheduledFloat((10, 1.0), (20, 0.0), (40, 0.5), default=7)
    assert float(schedule) == 7
    assert [schedule.at(x) for x in (0, 10, 15, 20, 30, 40, 99)] == [1.0, 1.0, 0.5, 0.0, 0.25, 0.5, 0.5]
    module = torch.nn.Sequential(Whiten(schedule))
    assert dict(named_schedules(module)) == {"0.whitening_limit": schedule}
    set_batch_counts([schedule], 15)
    assert float(schedule) == 0.5
    set_batch_counts([schedule], None)
    assert float(schedule) == 7


def test_chance_follows_torchs_generator():
    torch.manual_seed(0)
    first = [chance(0.3) for _ in range(2000)]
    torch.manual_seed(0)
    assert first == [chance(0.3) for _ in range(2000)]
    assert 0.25 < sum(first) / 2000 < 0.35
    state = torch.get_rng_state()
    assert not chance(0.0)
    assert torch.equal(torch.get_rng_state(), state)
