"""ScaledAdam and Eden against a recorded run of the original, and through a resume."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.optim import Eden, ScaledAdam


class Net(nn.Module):
    """The small net of the recorded run: vectors, matrices, a convolution, a scalar, an unused tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 24)
        self.conv = nn.Conv1d(24, 24, 3, padding=1, groups=24)
        self.out = nn.Linear(24, 6)
        self.log_scale = nn.Parameter(torch.tensor(0.1))
        self.unused = nn.Parameter(torch.ones(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.l1(x))
        h = h + torch.tanh(self.l2(h))
        h = h + torch.tanh(self.l3(h))
        h = h + self.conv(h.transpose(1, 2)).transpose(1, 2)
        return self.out(h) * self.log_scale.exp()


def set_up(tensors: dict, info: dict, **kwargs):
    net = Net()
    net.load_state_dict({k[5:]: v for k, v in tensors.items() if k.startswith("init.")})
    optimizer = ScaledAdam(net.named_parameters(), lr=info["base_lr"], clipping_scale=2.0, **kwargs)
    schedule = Eden(
        optimizer, info["lr_batches"], info["lr_epochs"], info["warmup_batches"], info["warmup_start"]
    )
    return net, optimizer, schedule


def one_step(step: int, net, optimizer, schedule, tensors, info):
    if step % 40 == 0:
        schedule.step_epoch(step // 40)
    i = 16 * step % 64
    scale = 50.0 if step in info["spikes"] else 1.0
    loss = scale * ((net(tensors["X"][i : i + 16]) - tensors["Y"][i : i + 16]) ** 2).sum()
    loss.backward()
    schedule.step_batch(step + 1)
    lr = optimizer.param_groups[0]["lr"]
    optimizer.step()
    optimizer.zero_grad()
    return loss.item(), lr


@pytest.fixture
def recorded(shared_dir):
    folder = shared_dir / "fixtures/scaled_adam"
    return load_file(folder / "ssl_like.safetensors"), json.loads((folder / "ssl_like.json").read_text())


def worst(net: nn.Module, tensors: dict, prefix: str) -> float:
    """Largest difference relative to each tensor's largest value."""
    return max(
        float(
            (p.detach() - tensors[f"{prefix}.{n}"]).abs().max()
            / tensors[f"{prefix}.{n}"].abs().max().clamp(min=1e-3)
        )
        for n, p in net.named_parameters()
    )


def run(recorded, **kwargs) -> dict[str, float]:
    tensors, info = recorded
    parts = set_up(tensors, info, **kwargs)
    found, losses, lrs = {}, [], []
    for step in range(info["steps"]):
        loss, lr = one_step(step, *parts, tensors, info)
        losses.append(loss)
        lrs.append(lr)
        if step + 1 in (1, 4, 50, 150):
            found[f"step{step + 1}"] = worst(parts[0], tensors, f"step{step + 1}")
    found["final"] = worst(parts[0], tensors, "final")
    found["loss"] = float((torch.tensor(losses).double() / tensors["losses"] - 1).abs().max())
    found["lr"] = float((torch.tensor(lrs).double() - tensors["lrs"]).abs().max())
    return found


def test_trajectory_matches_the_original(recorded):
    found = run(recorded)
    assert found["lr"] < 1e-8, found
    assert max(found["step1"], found["step4"]) < 1e-6, found
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize("change", [{"size_period": 5}, {"scalar_lr_scale": 0.11}, {"clipping_period": 90}])
def test_the_trajectory_test_notices_a_change(recorded, change):
    assert max(run(recorded, **change).values()) > 1e-3


def random_run(steps: int, resume_at: int | None = None, tmp_path=None) -> dict:
    torch.manual_seed(0)
    tensors = {"X": torch.randn(64, 9, 12), "Y": torch.randn(64, 9, 6)}
    net = Net()
    tensors |= {f"init.{k}": v.clone() for k, v in net.state_dict().items()}
    info = {"base_lr": 0.04, "lr_batches": 50, "lr_epochs": 1, "warmup_batches": 10, "warmup_start": 0.1}
    info["spikes"] = [30]
    parts = set_up(tensors, info)
    for step in range(steps):
        if step == resume_at:
            state = [part.state_dict() for part in parts]
            torch.save(state, tmp_path / "state.pt")
            parts = set_up(tensors, info)
            for part, saved in zip(parts, torch.load(tmp_path / "state.pt", weights_only=True), strict=True):
                part.load_state_dict(saved)
        one_step(step, *parts, tensors, info)
    return parts[0].state_dict()


def test_resume_is_bit_identical(tmp_path):
    straight, resumed = random_run(60), random_run(60, resume_at=27, tmp_path=tmp_path)
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)


def test_one_bad_gradient_is_ignored_and_many_stop():
    p = nn.Parameter(torch.ones(3, 4))
    optimizer = ScaledAdam([("p", p)], lr=0.1)
    for _ in range(5):
        p.grad = torch.randn(3, 4)
        optimizer.step()
    p.grad = torch.full((3, 4), torch.inf)
    optimizer.step()
    assert p.isfinite().all()

    def many() -> None:
        for _ in range(10):
            p.grad = torch.full((3, 4), torch.nan)
            optimizer.step()

    with pytest.raises(SslbenchError, match="not finite"):
        many()
    assert p.isfinite().all()


def test_state_of_another_model_is_refused():
    def made(n: int) -> ScaledAdam:
        params = [(str(i), nn.Parameter(torch.ones(2, 2))) for i in range(n)]
        optimizer = ScaledAdam(params)
        for _, p in params:
            p.grad = torch.ones(2, 2)
        optimizer.step()
        return optimizer

    with pytest.raises(ValueError, match="doesn't match"):
        made(3).load_state_dict(made(2).state_dict())
