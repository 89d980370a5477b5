"""The loop: learns, resumes exactly, names what is wrong, exports what it learnt."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml
from pretrain_toy import MODEL, config, curve, make_both, make_settings, weights

from sslbench import provenance
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.cli import main
from sslbench.data.manifests import describe
from sslbench.data.shar import write_shar
from sslbench.errors import SslbenchError
from sslbench.io import read_json, read_jsonl
from sslbench.pretrain import summary
from sslbench.pretrain.trainer import PretrainJob, run
from sslbench.report import store
from sslbench.train import checkpoint, precision, update


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_both(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> dict[str, Any]:
    return make_settings(corpus, tmp_path / "exp")


@pytest.mark.parametrize("optimizer", ["adamw", "scaled_adam"])
def test_a_short_run_learns_what_a_majority_guess_does_not_know(
    settings: dict[str, Any], optimizer: str
) -> None:
    changes = {"lr": 0.045, "lr_batches": 200.0, "lr_epochs": 50.0} if optimizer == "scaled_adam" else {}
    assert run(config(settings, optimizer=optimizer, max_steps=60, **changes)) == 0
    losses = [row[1] for row in curve(settings["exp_dir"])]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    result = read_json(Path(settings["exp_dir"]) / "summary.json")
    assert result["dev_acc"] > result["majority_share"] + 0.3
    assert 0.2 < result["majority_share"] < 0.5
    assert result["audio_s_per_s"] > 0
    assert result["peak_mem_bytes"] > 0


def test_a_run_is_reproducible_and_depends_on_its_seed(settings: dict[str, Any], tmp_path: Path) -> None:
    curves = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(config(settings, exp_dir=str(tmp_path / name), seed=seed, max_steps=4))
        curves.append(curve(tmp_path / name))
    assert curves[0] == curves[1] != curves[2]


ZIPFORMER = {
    "downsampling": [1, 2], "layers": [1, 1], "dims": [32, 32], "unmasked_dims": [32, 32],
    "ffn_dims": [32, 32], "heads": [2, 2], "kernels": [7, 7], "num_units": 4,
    "conv_layers": [[16, 10, 5], [16, 8, 8], [32, 8, 8]],
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw"},
        {"optimizer": "scaled_adam"},
        {"optimizer": "scaled_adam", "upstream": "zipformer_tiny", "model": ZIPFORMER},
    ],
    ids=["adamw", "scaled_adam", "zipformer"],
)
def test_stopping_and_going_on_changes_no_bit(
    settings: dict[str, Any], tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.update(changes, average_every=3, accum=2, crop="shortest", log_every=2)
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    assert run(config(settings, exp_dir=whole)) == 0

    stop_after(monkeypatch, steps=(3, 8))
    statuses = []
    while not statuses or statuses[-1] == 130:
        statuses.append(run(config(settings, exp_dir=parts)))
    assert statuses == [130, 130, 0]
    assert curve(parts) == curve(whole)
    for name in ("model.safetensors", "average.safetensors"):
        assert weights(parts, 12, name) == weights(whole, 12, name)
    assert utterances(parts) == utterances(whole)


def stop_after(
    monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...], numbers: tuple[int, ...] = (signal.SIGTERM,)
) -> None:
    """Send this process signals within the updates of these numbers."""
    real, pending = update.UpdateMaker.__call__, set(steps)

    def call(self: Any, step: int, *rest: Any, **kw: Any) -> Any:
        if step in pending:
            pending.discard(step)
            for number in numbers:
                os.kill(os.getpid(), number)
        return real(self, step, *rest, **kw)

    monkeypatch.setattr(update.UpdateMaker, "__call__", call)


@pytest.fixture
def hung_up() -> Iterator[None]:
    """A hang-up ends the process, as in a terminal; a run of the tests under nohup ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hung_up")
@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP,)])
def test_what_schedulers_and_closed_terminals_send_saves_first(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...]
) -> None:
    stop_after(monkeypatch, (2,), numbers)
    assert run(config(settings, save_every=100)) == 130
    assert checkpoint.steps_in(Path(settings["exp_dir"]) / "checkpoints") == [4]


def test_a_dev_loss_that_is_not_finite_hinders_neither_saving_nor_going_on(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"dev_loss": float("nan"), "dev_acc": 0.5}
    monkeypatch.setattr(PretrainJob, "validate", lambda *_: figures)
    assert run(config(settings, max_steps=6)) == 0
    assert run(config(settings, max_steps=8)) == 0
    rows = [row for row in read_jsonl(Path(settings["exp_dir"]) / "log.jsonl") if "dev_acc" in row]
    assert [(row["step"], row["dev_loss"], row["dev_acc"]) for row in rows] == [
        (6, None, 0.5),
        (8, None, 0.5),
    ]
    assert "dev_loss" not in read_json(Path(settings["exp_dir"]) / "summary.json")


def test_ctrl_c_twice_ends_at_once(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, (2,), (signal.SIGINT, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(config(settings, save_every=100))


def utterances(exp: str) -> list[Any]:
    return [(row["step"], row["epoch"], row["ids"]) for row in read_jsonl(Path(exp) / "utterances-0.jsonl")]


def test_every_epoch_uses_every_utterance_once_across_a_stop(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, steps=(4,))
    settings["max_steps"] = 30
    assert run(config(settings)) == 130
    assert run(config(settings)) == 0
    by_epoch: dict[int, list[str]] = {}
    for _, epoch, ids in utterances(settings["exp_dir"]):
        by_epoch.setdefault(epoch, []).extend(ids)
    complete = [sorted(ids) for epoch, ids in by_epoch.items() if epoch < max(by_epoch)]
    assert len(complete) >= 2
    assert all(ids == [f"train{i:03d}" for i in range(48)] for ids in complete)


def test_other_settings_are_refused_by_name(settings: dict[str, Any]) -> None:
    run(config(settings, max_steps=2))
    other = {**settings, "lr": 0.5, "model": {**settings["model"], "ffn_dim": 48}, "max_steps": 4}
    with pytest.raises(SslbenchError, match=r"lr \(0.003 -> 0.5\), model.ffn_dim \(64 -> 48\)"):
        run(config(other))
    assert run(config(settings, max_steps=4, log_every=2)) == 0
    assert curve(settings["exp_dir"])[-1][0] == 4


def test_a_finished_run_is_left_alone(settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run(config(settings, max_steps=2))
    before = (Path(settings["exp_dir"]) / "log.jsonl").read_bytes()
    assert run(config(settings, max_steps=2)) == 0
    assert "already complete" in capsys.readouterr().out
    assert (Path(settings["exp_dir"]) / "log.jsonl").read_bytes() == before


def test_unreadable_audio_is_skipped_and_named(tmp_path: Path) -> None:
    corpus = make_both(tmp_path)
    (corpus / "train007.wav").write_bytes(b"RIFF")
    (corpus / "train011.wav").unlink()
    settings = make_settings(corpus, tmp_path / "exp", max_steps=20)
    with pytest.raises(SslbenchError, match=r"limit of 1\.0%"):
        run(config(settings))
    assert run(config(settings, skip_limit_share=0.2)) == 0
    named = [row["id"] for row in read_jsonl(tmp_path / "exp" / "skipped-0.jsonl")]
    assert sorted(named) == ["train007", "train011"]


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    corpus = make_both(tmp_path)
    samples, rate = soundfile.read(corpus / "train020.wav", dtype="float32")
    soundfile.write(corpus / "train020.wav", samples / abs(samples).max() * 3.3e38, rate, subtype="FLOAT")
    settings = make_settings(corpus, tmp_path / "exp", max_steps=20, save_every=1)
    with pytest.raises(
        SslbenchError, match=r"step \d+: the (loss|gradient) is not finite.*train020.*nothing was"
    ):
        run(config(settings))
    rows = utterances(settings["exp_dir"])
    assert "train020" in rows[-1][2]
    assert len(curve(settings["exp_dir"])) == len(rows) - 1
    kept = UpstreamCheckpoint  # the last checkpoint before it is usable
    made = summary.export(tmp_path / "exp", tmp_path / "up")
    assert isinstance(made, kept)
    assert all(bool(torch.isfinite(t).all()) for t in made.state.values())


def test_bf16_and_workers_and_tensorboard(settings: dict[str, Any]) -> None:
    assert run(config(settings, precision="bf16", num_workers=1, tensorboard=True, max_steps=4)) == 0
    assert len(curve(settings["exp_dir"])) == 4


def test_fp16_learns_with_a_scale(settings: dict[str, Any]) -> None:
    assert run(config(settings, precision="fp16", max_steps=40)) == 0
    rows = [row for row in read_jsonl(Path(settings["exp_dir"]) / "log.jsonl") if "loss" in row]
    assert all(row["grad_scale"] > 0 for row in rows)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]


def test_an_fp16_overflow_is_passed_over_with_half_the_scale(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = precision.Precision.__init__

    def huge(self: Any, *args: Any) -> None:
        original(self, *args)
        self.scale = 2.0**40

    monkeypatch.setattr(precision.Precision, "__init__", huge)
    assert run(config(settings, precision="fp16", max_steps=4)) == 0
    rows = [row for row in read_jsonl(Path(settings["exp_dir"]) / "log.jsonl") if "loss" in row]
    assert [row["grad_norm"] for row in rows] == [None] * 4
    assert [row["grad_scale"] for row in rows] == [2.0**39, 2.0**38, 2.0**37, 2.0**36]
    assert len({row["lr"] for row in rows}) == 1  # nothing was updated


def test_a_collapsed_fp16_scale_rolls_back_once(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, harmed = precision.Precision.adjust, []

    def adjust(self: Any, step: int, finite: bool) -> None:
        if step == 9 and not harmed:
            harmed.append(step)
            self.scale = 1e-6
        original(self, step, finite)

    monkeypatch.setattr(precision.Precision, "adjust", adjust)
    assert run(config(settings, precision="fp16")) == 0
    (event,) = [row for row in read_jsonl(Path(settings["exp_dir"]) / "log.jsonl") if "event" in row]
    assert (event["step"], event["lr_factor"]) == (8, 0.5)
    assert "step 9: the gradient scale fell to 1.0e-06" in event["reason"]


def test_rates_and_decay_by_name(settings: dict[str, Any], tmp_path: Path) -> None:
    run(config(settings, max_steps=4, lr_scales={"final_proj.*": 0.0}))
    made = summary.export(Path(settings["exp_dir"]), tmp_path / "up")
    initial = summary.export_initial(Path(settings["exp_dir"]), tmp_path / "initial")
    same = {name for name, t in made.state.items() if torch.equal(t, initial.state[name])}
    assert {name for name in made.state if name.startswith("final_proj")} <= same
    assert len(same) < len(made.state) / 2
    with pytest.raises(SslbenchError, match="lr_scales and no_decay need optimizer: adamw"):
        config(settings, optimizer="scaled_adam", no_decay=["x"])


def test_recomputed_activations_change_no_number(settings: dict[str, Any], tmp_path: Path) -> None:
    run(config(settings, max_steps=4))
    run(config(settings, max_steps=4, exp_dir=str(tmp_path / "saving"), recompute_activations=True))
    for row, other in zip(curve(settings["exp_dir"]), curve(tmp_path / "saving"), strict=True):
        assert row == pytest.approx(other, rel=1e-6)


def test_a_compiled_model_learns_the_same(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tracer and autograd of torch.compile, but eager kernels: C++ ones take minutes to build."""
    compiled, original = [], torch.nn.Module.compile

    def compile_eagerly(self: torch.nn.Module) -> None:
        compiled.append(self)
        original(self, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    plain = {**settings, "model": {**settings["model"], "dropout": 0.0}, "max_steps": 3}
    run(config(plain))
    run(config(plain, exp_dir=str(tmp_path / "compiled"), compile=True))
    assert len(compiled) == MODEL["layers"]
    for row, other in zip(curve(settings["exp_dir"]), curve(tmp_path / "compiled"), strict=True):
        assert row == pytest.approx(other, rel=1e-3)


def test_validation_can_stop_early(settings: dict[str, Any], tmp_path: Path) -> None:
    seen = []
    for name, limit in (("all", None), ("some", 3.0), ("again", 3.0)):
        run(config(settings, max_steps=2, exp_dir=str(tmp_path / name), valid_max_s=limit))
        rows = list(read_jsonl(tmp_path / name / "log.jsonl"))
        seen.append([row["dev_loss"] for row in rows if "dev_loss" in row])
    assert seen[1] == seen[2] != seen[0]


def test_log_lines_carry_the_accounting(settings: dict[str, Any]) -> None:
    run(config(settings, max_steps=3))
    row = next(read_jsonl(Path(settings["exp_dir"]) / "log.jsonl"))
    needed = {"step", "loss", "acc", "lr", "audio_s_per_s", "data_wait_share", "step_s", "peak_mem_bytes"}
    assert needed <= set(row)
    assert row["audio_hours_per_s"] == pytest.approx(row["audio_s_per_s"] / 3600, rel=0.01, abs=1e-6)
    assert row["audio_s_per_s"] * row["step_s"] == pytest.approx(3600 * row["audio_hours"], rel=0.05)
    assert 0 <= row["data_wait_share"] <= 1


def test_export_writes_what_was_trained(settings: dict[str, Any], tmp_path: Path) -> None:
    run(config(settings, average_every=2))
    exp = Path(settings["exp_dir"])
    plain = summary.export(exp, tmp_path / "plain", average=False)
    averaged = summary.export(exp, tmp_path / "averaged")
    initial = summary.export_initial(exp, tmp_path / "initial")
    assert (plain.weights, initial.weights) == ("trained", "random")
    assert averaged.card["averaged_steps"] == [4, 12]
    name = "final_proj.weight"
    distances = [float((m.state[name] - initial.state[name]).norm()) for m in (initial, averaged, plain)]
    assert distances[0] == 0 < distances[1] < distances[2]
    card = yaml.safe_load((tmp_path / "plain" / "card.yaml").read_text())
    for key in ("steps", "audio_hours_seen", "corpus", "wall_s", "audio_s_per_s", "config_sha256", "dev_acc"):
        assert card[key] is not None
    loaded = UpstreamCheckpoint.load(tmp_path / "plain")
    assert loaded.config["num_units"] == 4
    with pytest.raises(SslbenchError, match="there are: 4, 8, 12"):
        summary.export(exp, tmp_path / "x", step=5)


def test_the_command_line_exports_and_stamps_a_row(settings: dict[str, Any], tmp_path: Path) -> None:
    run(config(settings, max_steps=4))
    export = ["export", settings["exp_dir"], "--out", str(tmp_path / "up")]
    assert main([*export, "--results", str(tmp_path / "results"), "--system", "toy"]) == 0
    row = store.load(tmp_path / "results" / "toy" / "pretrain.json")
    result = read_json(Path(settings["exp_dir"]) / "summary.json")
    assert row.metrics["dev_acc"].value == pytest.approx(100 * result["dev_acc"])
    assert row.cost["steps"] == 4
    assert row.methods == {"machine": provenance.machine(gpu=False)}  # the one that trained
    assert row.weights_sha256 == UpstreamCheckpoint.load(tmp_path / "up").weights_sha256
    assert main([*export, "--step", "3"]) == 2


def test_export_of_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(SslbenchError, match="is no pretraining run"):
        summary.export(tmp_path, tmp_path / "up")


def test_the_log_survives_json_readers(settings: dict[str, Any]) -> None:
    run(config(settings, max_steps=2))
    for line in (Path(settings["exp_dir"]) / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_the_card_of_a_run_on_a_shar_folder_names_its_data(settings: dict[str, Any], tmp_path: Path) -> None:
    shar = tmp_path / "shar" / "train"
    write_shar(settings["train_manifest"], shar)
    run(config(settings, train_manifest=str(shar), max_steps=2))
    card = summary.export(Path(settings["exp_dir"]), tmp_path / "out").card
    about = describe(settings["train_manifest"])
    assert (card["train_hours"], card["data_sha256"]) == (about.data.hours, about.sha256)
    assert card["corpus"]
