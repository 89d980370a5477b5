"""Alarms come when training goes wrong and not otherwise; a run goes back once, then stops."""

from __future__ import annotations

import dataclasses
import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sslbench.errors import SslbenchError
from sslbench.io import read_jsonl
from sslbench.pretrain.trainer import PretrainJob, run
from sslbench.train import watchdog as wd
from sslbench.train.dist import World

sys.path.insert(0, str(Path(__file__).parent.parent / "pretrain"))
from pretrain_toy import config, make_both, make_settings

POISON = 1e4  # times the loss of one batch
WORLD = World(0, 1, torch.device("cpu"))


def feed(dog: wd.Watchdog, step: int, loss: float, norm: float = 1.0) -> None:
    dog.judge(step, loss, norm, {}, ["u1", "u2"])


def test_noisy_falling_losses_raise_no_alarm() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        dog = wd.Watchdog(torch.nn.Linear(1, 1), WORLD)
        for step in range(1, 2000):
            loss = 2 + 4 * math.exp(-step / 300) + rng.gauss(0, 0.2)
            feed(dog, step, loss, math.exp(rng.gauss(0, 0.7)))
        assert dog.healthy_step > 1900


def test_a_single_outlier_is_no_alarm_but_five_in_a_row_are() -> None:
    dog = wd.Watchdog(torch.nn.Linear(1, 1), WORLD)
    for step in range(1, 101):
        feed(dog, step, 50.0 if step % 20 == 5 else 2.0)
    for step in range(101, 105):
        feed(dog, step, 50.0)
    with pytest.raises(wd.UnstableError, match=r"step 105: the loss is 50, above .* last was made of u1, u2"):
        feed(dog, 105, 50.0)


def test_the_memory_survives_a_resume() -> None:
    dog, twin = (wd.Watchdog(torch.nn.Linear(1, 1), WORLD) for _ in range(2))
    for step in range(1, 60):
        feed(dog, step, 2.0)
    for step in range(60, 64):
        feed(dog, step, 2.0, norm=1e6)
    twin.load_state_dict(dog.state_dict())
    with pytest.raises(wd.UnstableError, match=r"step 64: the gradient norm is 1e\+06") as alarm:
        feed(twin, 64, 2.0, norm=1e6)
    assert alarm.value.healthy_step == 59


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    corpus = make_both(tmp_path)
    return make_settings(corpus, tmp_path / "exp", max_steps=90, save_every=10, keep_last=9, valid_every=90)


def events(settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(Path(settings["exp_dir"]) / "log.jsonl") if "event" in row]


def sabotage(monkeypatch: pytest.MonkeyPatch, at: int, times: int, harm: Any) -> list[int]:
    """Do `harm(model)` before update `at`, at most so many times."""
    done: list[int] = []
    original = PretrainJob.before_update

    def before_update(self: PretrainJob, step: int) -> None:
        original(self, step)
        if step == at and len(done) < times:
            done.append(step)
            with torch.no_grad():
                harm(self.model)

    monkeypatch.setattr(PretrainJob, "before_update", before_update)
    return done


def turn_against_itself(model: Any) -> None:
    model.final_proj.weight.mul_(-3)


def silence(model: Any) -> None:
    for layer in wd.layers_of(model).values():
        for parameter in layer.parameters():
            parameter.zero_()


def test_a_healthy_run_has_no_events(settings: dict[str, Any]) -> None:
    assert run(config(settings)) == 0
    assert events(settings) == []


def test_a_sabotaged_weight_is_rolled_back_with_half_the_rate(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = sabotage(monkeypatch, at=55, times=1, harm=turn_against_itself)
    assert run(config(settings)) == 0
    assert done == [55]
    (event,) = events(settings)
    assert (event["step"], event["lr_factor"]) == (50, 0.5)
    assert "step 60: the loss is" in event["reason"]
    rows = [row for row in read_jsonl(Path(settings["exp_dir"]) / "log.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 91))
    assert max(row["loss"] for row in rows[50:]) < rows[0]["loss"]
    lr = {row["step"]: row["lr"] for row in rows}
    steps, warmup = settings["max_steps"], settings["warmup_steps"]
    assert lr[60] == pytest.approx(0.5 * settings["lr"] * (1 - (59 - warmup) / (steps - warmup)))
    assert (Path(settings["exp_dir"]) / "checkpoints" / "unstable-step-00000060").is_dir() is False


def test_the_second_time_it_stops_and_says_why(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch, at=55, times=9, harm=turn_against_itself)
    with pytest.raises(SslbenchError, match=r"step 60: the loss is .*train\d+.*half the rate did not help"):
        run(config(settings))
    assert len(events(settings)) == 1


def test_dead_layers_are_seen(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wd, "LOOK_EVERY", 10)
    sabotage(monkeypatch, at=50, times=9, harm=silence)
    with pytest.raises(SslbenchError, match=r"step 51: .*layers\.0 is dead: every frame alike"):
        run(config(settings))
    assert [event["step"] for event in events(settings)] == [40]


def test_a_poison_batch_that_explodes_every_loss_after_it(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad batch with a huge rate throws the weights; the run recovers by going back."""
    original, poisoned = PretrainJob.loss, []

    def loss(self: PretrainJob, inputs: Any) -> Any:
        found = original(self, inputs)
        if self.model.training and "train005" in inputs.ids and len(self.step_seen) > 40 and not poisoned:
            poisoned.append(1)
            return dataclasses.replace(found, loss_sum=found.loss_sum * POISON)
        return found

    monkeypatch.setattr(PretrainJob, "loss", loss)
    monkeypatch.setattr(PretrainJob, "step_seen", [], raising=False)
    before = PretrainJob.before_update

    def count(self: PretrainJob, step: int) -> None:
        before(self, step)
        self.step_seen.append(step)

    monkeypatch.setattr(PretrainJob, "before_update", count)
    # SGD-like: without clipping and with momentum only, a huge gradient is a huge step
    monkeypatch.setattr(torch.optim.AdamW, "step", _plain_step)
    assert run(config(settings, lr=1e-3, clip_norm=1e30)) == 0
    (event,) = events(settings)
    assert event["step"] <= 50
    assert poisoned == [1]


@torch.no_grad()
def _plain_step(self: torch.optim.Optimizer, closure: Any = None) -> None:
    for group in self.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.sub_(parameter.grad * group["lr"])
