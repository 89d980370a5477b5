"""Cached layer means, all learning rates in one computation: the same loss curves as plain training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from official_layouts import fluent_commands, iemocap, speech_commands, voxceleb
from probe_fakes import Spectral

from sslbench.data.loading import read_cut
from sslbench.probe.encoder import Encoder
from sslbench.probe.grid import FrameGrid, new_probe
from sslbench.probe.plan import make_plan
from sslbench.probe.pooled import PooledGrid
from sslbench.probe.runner import make_grid
from sslbench.probe.store import CachedStore
from sslbench.probe.task import load_task
from sslbench.probe.utterance import UtteranceTask

# higher ones send the loss of these features into the hundreds, where rounding alone is above 1e-5
LRS = [1e-3, 3e-4, 1e-4]
STEPS = 25
LAYOUTS = {"ks": speech_commands, "ic": fluent_commands, "er": iemocap, "sid": voxceleb}


class SquaredFirst(torch.nn.Module):
    """The control: nonlinear before the mean, so that a mean is not enough."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        return self.head(features.square(), lens)


def plain_curve(task: UtteranceTask, root: Path, lr: float, squared: bool) -> list[float]:
    """A loop over all frames, one learning rate, upstream in every step: as s3prl trains."""
    plan = make_plan(task, root, 0)
    parts = next(iter(plan.folds.values()))
    encoder = Encoder(Spectral())
    probe = new_probe(task, encoder.layers, encoder.dim, seed=0)
    head = SquaredFirst(probe.head) if squared else probe.head
    optimizer = torch.optim.Adam(probe.parameters(), lr=lr)
    stream = task.batches([plan.examples[n] for n in parts["train"]], 0)
    losses = []
    for _ in range(STEPS):
        chosen = [plan.examples[parts["train"][i]] for i in next(stream)]
        clips = encoder.encode([task.waveform(read_cut(e.cut)) for e in chosen])
        lens = torch.tensor([clip.shape[1] for clip in clips])
        states = torch.nn.utils.rnn.pad_sequence([c.transpose(0, 1) for c in clips], batch_first=True)
        features = probe.mix(states.permute(2, 0, 1, 3))
        loss = task.loss(head(features, lens), lens, [e.target for e in chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(probe.parameters(), task.protocol.grad_clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_means_and_stacked_grid_train_as_plain_loops_do(name: str, tmp_path: Path) -> None:
    root = LAYOUTS[name](tmp_path / "corpus")
    task = load_task(name, "full")
    assert isinstance(task, UtteranceTask)
    task.protocol = replace(task.protocol, batch_clips=8)
    plan = make_plan(task, root, 0)
    encoder = Encoder(Spectral())
    store = CachedStore(tmp_path / "c", plan.examples, encoder, True, "k", waveform=task.waveform)
    grid = make_grid(task, store, plan.examples, LRS, seed=0)
    assert isinstance(grid, PooledGrid)
    parts = next(iter(plan.folds.values()))
    stream = task.batches([plan.examples[n] for n in parts["train"]], 0)
    curves = [grid.update([parts["train"][i] for i in next(stream)], range(3)) for _ in range(STEPS)]
    for k, lr in enumerate(LRS):
        curve = [float(losses[k]) for losses in curves]
        plain = plain_curve(task, root, lr, squared=False)
        assert curve == pytest.approx(plain, abs=1e-5)
        assert abs(curve[-1] - curve[0]) > 1e-3  # something was learned
        control = plain_curve(task, root, lr, squared=True)
        assert max(abs(a - b) for a, b in zip(curve, control, strict=True)) > 1e-3


def test_stacked_grid_equals_one_probe_after_another(tmp_path: Path) -> None:
    """The other implementation of a grid, on the same cached means; a probe that is left out stands still."""
    root = fluent_commands(tmp_path / "corpus")
    task = load_task("ic", "full")
    assert isinstance(task, UtteranceTask)
    plan = make_plan(task, root, 0)
    store = CachedStore(tmp_path / "c", plan.examples, Encoder(Spectral()), True, "k")
    numbers = next(iter(plan.folds.values()))["train"]
    stacked = PooledGrid(task, store, plan.examples, LRS, 0)
    single = FrameGrid(task, store, plan.examples, LRS, 0)
    for step in range(10):
        which = [0, 1, 2] if step < 5 else [0, 2]
        torch.testing.assert_close(
            stacked.update(numbers, which), single.update(numbers, which), atol=1e-5, rtol=0
        )
    for k in range(3):
        for key, value in single.state(k).items():
            torch.testing.assert_close(stacked.state(k)[key], value, atol=1e-4, rtol=0)
    assert stacked.answers(numbers, [0, 1]) == single.answers(numbers, [0, 1])


def test_a_diverged_learning_rate_does_no_harm_to_the_others(tmp_path: Path) -> None:
    root = fluent_commands(tmp_path / "corpus")
    task = load_task("ic", "full")
    assert isinstance(task, UtteranceTask)
    plan = make_plan(task, root, 0)
    store = CachedStore(tmp_path / "c", plan.examples, Encoder(Spectral()), True, "k")
    numbers = next(iter(plan.folds.values()))["train"]
    grids = [PooledGrid(task, store, plan.examples, [lr, 1e-2], 0) for lr in (1e-3, 1e-3)]
    grids[1].load(0, {name: torch.full_like(v, float("nan")) for name, v in grids[1].state(0).items()})
    for _ in range(5):
        losses = [grid.update(numbers, [0, 1]) for grid in grids]
    assert float(losses[0][1]) == float(losses[1][1])
    assert grids[1].skipped == [5, 0]
    assert grids[0].skipped == [0, 0]
