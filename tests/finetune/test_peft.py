"""What is added to an encoder starts as nothing, learns alone, keeps clips apart, and is what is stored."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.finetune import experiment
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.experiment import load_experiment
from sslbench.finetune.model import Recognizer
from sslbench.finetune.optimizer import by_depth, make_updater
from sslbench.finetune.peft.ladder import Ladder
from sslbench.finetune.peft.lora import SENSITIVITIES
from sslbench.finetune.peft.settings import PeftSettings
from sslbench.finetune.peft.sites import blocks, linear_targets
from sslbench.finetune.peft.tuning import Tuning, make_tuning
from sslbench.finetune.search import finetune
from sslbench.finetune.trainer import FinetuneJob
from sslbench.io import read_json
from sslbench.train.checkpoint import load
from sslbench.upstreams import load_upstream

Make = Callable[..., FinetuneConfig]
INSIDE = ["lora", "adalora", "houlsby", "conv_adapter"]
OURS = ["zipformer_tiny", "hubert_k2ssl_tiny"]
SMALL = PeftSettings(rank=2, initial_rank=3, bottleneck=4, ladder_dim=4)


def upstream(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_upstream(name)


def tuned(name: str, how: str, model: nn.Module | None = None) -> tuple[nn.Module, Tuning]:
    if "lora" in how:
        pytest.importorskip("peft")
    model = model or upstream(name)
    torch.manual_seed(0)
    return model, make_tuning(how, model, SMALL, 100)


def states(model: nn.Module, tuning: Tuning, wavs: list[torch.Tensor]) -> torch.Tensor:
    tuning.use_lens(torch.tensor([len(wav) for wav in wavs]))
    return torch.stack(model(wavs)["hidden_states"])


def shake(tuning: Tuning) -> None:
    """Move every added parameter, so that the identity at the start is left."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in tuning.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("how", INSIDE)
@pytest.mark.parametrize("name", OURS)
def test_starts_as_nothing_then_changes_and_gets_every_gradient(name: str, how: str) -> None:
    wavs = [torch.randn(8000, generator=torch.Generator().manual_seed(0))]
    model = upstream(name)
    before = torch.stack(model(wavs)["hidden_states"])
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    model, tuning = tuned(name, how, model)
    torch.testing.assert_close(states(model, tuning, wavs), before, rtol=0, atol=1e-5)
    shake(tuning)
    after = states(model, tuning, wavs)
    assert float((after - before).detach().abs().max()) > 1e-2
    after.square().sum().backward()
    learning = [p for p in tuning.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learning)
    own = {id(p) for p in learning}
    assert not any(p.requires_grad for p in model.parameters() if id(p) not in own)
    now = {key.replace(".base_layer", ""): value for key, value in model.state_dict().items()}
    assert all(torch.equal(now[key], value) for key, value in kept.items())


@pytest.mark.parametrize("how", INSIDE)
@pytest.mark.parametrize("name", OURS)
def test_a_clip_is_the_same_in_any_batch(name: str, how: str) -> None:
    model, tuning = tuned(name, how)
    shake(tuning)
    generator = torch.Generator().manual_seed(0)
    short, long = torch.randn(6000, generator=generator), torch.randn(16000, generator=generator)
    with torch.no_grad():
        alone, together = states(model, tuning, [short]), states(model, tuning, [long, short])
        frames = alone.shape[2]
        torch.testing.assert_close(together[:, 1, :frames], alone[:, 0], rtol=1e-3, atol=1e-3)
        if how == "conv_adapter":  # positive control: without lengths, padding leaks
            tuning.use_lens(torch.tensor([16000]))
            leaked = torch.stack(model([long, short])["hidden_states"])
            assert float((leaked[:, 1, :frames] - alone[:, 0]).abs().max()) > 1e-2


def test_sizes_are_the_known_ones() -> None:
    """HuBERT Base: LoRA r=8 on q and v 294,912; a Houlsby pair of width 32 per layer, twice 599,424."""
    model = nn.Module()
    model.layers = nn.ModuleList(Layer(768, 3072) for _ in range(12))
    model.forward = lambda wavs: {"hidden_states": run_layers(model, wavs)}  # type: ignore[method-assign]
    pytest.importorskip("peft")
    lora = make_tuning("lora", model, PeftSettings(rank=8), 100)
    assert sum(p.numel() for p in lora.parameters()) == 294_912
    adapters = make_tuning("houlsby", model, PeftSettings(bottleneck=32), 100)
    assert sum(p.numel() for p in adapters.parameters()) == 2 * 599_424


class Layer(nn.Module):
    """As Hugging Face names things; attention returns a tuple."""

    def __init__(self, dim: int, hidden: int, functional: bool = False) -> None:
        super().__init__()
        self.attention = Attention(dim, functional)
        self.feed_forward = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        x = x + self.attention(x)[0]
        return x + self.feed_forward(x), None


class Attention(nn.Module):
    def __init__(self, dim: int, functional: bool) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim) for _ in range(3))
        self.functional = functional

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        if self.functional:  # as fairseq: weights are read, modules never called
            q, k, v = (
                nn.functional.linear(x, m.weight, m.bias) for m in (self.q_proj, self.k_proj, self.v_proj)
            )
        else:
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return nn.functional.scaled_dot_product_attention(q, k, v), None


def run_layers(model: Any, wavs: list[torch.Tensor]) -> list[torch.Tensor]:
    x = nn.utils.rnn.pad_sequence([wav[: len(wav) // 320 * 320] for wav in wavs], batch_first=True)
    x = (
        x.unflatten(1, (-1, 320))
        .mean(-1, keepdim=True)
        .expand(-1, -1, model.layers[0].attention.q_proj.in_features)
    )
    found = [x]
    for layer in model.layers:
        found.append(layer(found[-1])[0])
    return found


def test_projections_that_are_never_called_are_not_adapted() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList(Layer(8, 16, functional=True) for _ in range(2))
    model.layers[0].fc1 = nn.Linear(8, 8)
    for layer in model.layers:
        layer.feed_forward = nn.Sequential()
        layer.feed_forward.fc1, layer.feed_forward.fc2 = nn.Linear(8, 16), nn.Linear(16, 8)
    model.forward = lambda wavs: {"hidden_states": run_layers(model, wavs)}  # type: ignore[method-assign]
    assert {name.split(".")[-1] for name in linear_targets(model, [])} == {"fc1", "fc2"}
    assert "layers.0.fc1" not in linear_targets(model, [])  # a spare part
    with pytest.raises(SslbenchError, match="q_proj is never called as a module"):
        linear_targets(model, ["q_proj"])
    with pytest.raises(SslbenchError, match="no linear layer has such a name"):
        linear_targets(model, ["qq"])
    with pytest.raises(SslbenchError, match="no layers found"):
        blocks(nn.Linear(2, 2))


def test_a_hugging_face_hubert_can_be_adapted() -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    small = transformers.HubertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        conv_dim=(16,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    for how, targets in (("lora", 4), ("adalora", 4), ("houlsby", 4), ("conv_adapter", 2)):
        hubert = transformers.HubertModel(small).eval()
        model = nn.Module()
        model.hubert = hubert
        model.forward = lambda wavs, run=hubert: {  # type: ignore[method-assign]
            "hidden_states": run(
                nn.utils.rnn.pad_sequence(wavs, batch_first=True), output_hidden_states=True
            ).hidden_states
        }
        model.requires_grad_(False).eval()
        _, tuning = tuned("", how, model)
        assert len(getattr(tuning, "targets", None) or tuning.places) == targets
        wavs = [torch.randn(8000)]
        before = states(model, tuning, wavs).detach()
        shake(tuning)
        assert float((states(model, tuning, wavs) - before).detach().abs().max()) > 1e-3


def test_adalora_moves_and_drops_ranks() -> None:
    model, tuning = tuned("hubert_k2ssl_tiny", "adalora")
    assert len(tuning.targets) == 8  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW([p for p in tuning.parameters() if p.requires_grad], lr=1e-2)
    wavs = [torch.randn(6000, generator=torch.Generator().manual_seed(0))]
    goal = torch.randn_like(states(model, tuning, wavs)[-1], requires_grad=False)
    for step in range(80):
        loss = (states(model, tuning, wavs)[-1] - goal).square().mean()
        optimizer.zero_grad()
        (loss + 0.01 * tuning.penalty()).backward()  # type: ignore[operator]
        optimizer.step()
        tuning.after_update(step)
        if step == 40:
            halfway = tuning.state()
    assert tuning.facts() == {"mean_rank": 2.0}  # from 3, as asked
    ranks = [int((p != 0).sum()) for name, p in tuning.named_parameters() if "lora_E" in name]
    assert len(set(ranks)) > 1  # not everywhere the same
    # sensitivities are read on the CPU and belong beside their parameters
    tuning.tuner[0].model.to("meta")  # type: ignore[union-attr, operator]
    tuning.load_state(halfway)
    kept = [value for name in SENSITIVITIES for value in tuning.state()[name].values()]
    assert {value.device.type for value in kept} == {"meta"}
    assert len(kept) == 3 * 3 * 8


def test_ladder_starts_as_the_weighted_sum_and_ignores_padding() -> None:
    torch.manual_seed(0)
    ladder = Ladder(3, 6, 4, 3)
    padded, mask = torch.randn(1, 9, 3, 6), torch.arange(9)[None] < 5
    assert not ladder(padded, mask).any()
    nn.init.normal_(ladder.out.weight)
    torch.testing.assert_close(ladder(padded, mask)[:, :5], ladder(padded[:, :5], mask[:, :5]))
    all_valid = torch.ones(1, 9, dtype=torch.bool)
    assert not torch.allclose(ladder(padded, all_valid)[:, :5], ladder(padded[:, :5], mask[:, :5]))


@pytest.fixture
def _real_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of the room's fakes."""
    monkeypatch.setattr(experiment, "load_upstream", load_upstream)


class _StopError(Exception):
    pass


@pytest.mark.usefixtures("_real_upstreams")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("how", [*INSIDE, "ladder"])
def test_resumed_equals_uninterrupted(make_config: Make, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if "lora" in how:
        pytest.importorskip("peft")
    base = make_config(
        upstream="hubert_k2ssl_tiny", tune=how, peft=dataclasses.replace(SMALL, dropout=0.2), dropout=0.2,
        steps=10, eval_every_steps=5, log_every_steps=1, max_duration_s=4.0,
    )  # fmt: skip
    whole = dataclasses.replace(base, exp_dir=base.exp_dir + "-whole")
    parts = dataclasses.replace(base, exp_dir=base.exp_dir + "-parts")
    done = finetune(whole)
    original = FinetuneJob.before_update

    def killed(self: FinetuneJob, step: int) -> None:
        if step == 8:
            raise _StopError
        original(self, step)

    monkeypatch.setattr(FinetuneJob, "before_update", killed)
    with pytest.raises(_StopError):
        finetune(parts)
    monkeypatch.setattr(FinetuneJob, "before_update", original)
    finetune(parts)
    first, second = (load(Path(c.exp_dir) / "checkpoints" / "step-00000010").model for c in (whole, parts))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert any(key.startswith(("tuning.", "featurizer.ladder.")) for key in first)
    assert not any(key.startswith("upstream") for key in first)  # the encoder is not stored again
    assert done["step_s"] > 0
    assert done["peak_mem_bytes"] > 0
    assert 0 < done["params_trainable"] < done["params_upstream"]
    again = load_experiment(whole.exp_dir).model
    best = load(Path(whole.exp_dir) / "best" / f"step-{done['step']:08}").model
    assert all(torch.equal(value, best[key]) for key, value in again.state_dict().items())
    assert read_json(Path(whole.exp_dir) / "DONE")["params_trainable"] == done["params_trainable"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_span_masks_act_in_training_only(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(tune="full", span_mask_prob=0.65)
    torch.manual_seed(0)
    model = Recognizer(load_upstream("hubert_k2ssl_tiny", frozen=False), 5, config)
    audio, lens = torch.randn(2, 16000), torch.tensor([16000, 9000])
    with torch.no_grad():
        model.eval()
        plain = model.states(audio, lens)[0]
        assert torch.equal(model.states(audio, lens)[0], plain)
        model.train()
        first, second = model.states(audio, lens)[0], model.states(audio, lens)[0]
        encoder = model.any_upstream.model
        nn.init.constant_(encoder.mask_emb, 50.0)
        masked = (encoder.embed(torch.randn(2, 49, 96), None) == 50.0).all(-1)
    assert not torch.equal(first, second)
    assert 0.3 < float(masked[0].float().mean()) < 0.9
    assert 0 < int(masked[1].sum()) == int(masked[1, :29].sum())
    with pytest.raises(SslbenchError, match="one of our encoders"):
        Recognizer(nn_fake(), 5, config)
    with pytest.raises(SslbenchError, match="use time_masks"):
        finetune(make_config(span_mask_prob=0.5))


def nn_fake() -> nn.Module:
    from .conftest import Tunable

    return Tunable(frozen=False)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", OURS)
def test_layers_learn_slower_the_farther_they_are_from_the_output(make_config: Make, name: str) -> None:
    config = make_config(
        tune="full", upstream_lr=1e-3, layer_lr_decay=0.5, schedule="constant", warmup_share=0.0
    )  # fmt: skip
    recognizer = Recognizer(load_upstream(name, frozen=False), 5, config)
    updater, model = make_updater(recognizer, config), recognizer.any_upstream
    updater.set_rates(1, 0)
    rates = {id(p): group["lr"] for group in updater.optimizer.param_groups for p in group["params"]}
    layers = blocks(model)
    for depth, layer in enumerate(reversed(layers)):
        (rate,) = {rates[id(p)] for n, p in model.named_parameters() if n.startswith(layer + ".")}
        assert rate == pytest.approx(1e-3 * 0.5**depth)
    lowest = [rates[id(p)] for n, p in model.named_parameters() if "feature_extractor" in n]
    assert set(lowest) == {min(rates.values())}
    assert min(rates.values()) == pytest.approx(1e-3 * 0.5 ** len(layers))
    assert {rates[id(p)] for p in recognizer.head.parameters()} == {config.lr}
    assert rates.keys() == {id(p) for p in recognizer.parameters() if p.requires_grad}
    assert by_depth(model, 1.0)[0][0] == 0
