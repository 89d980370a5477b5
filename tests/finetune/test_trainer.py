"""Fine-tuning learns, resumes exactly, and names what it cannot use."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.finetune import experiment, trainer
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.evaluate import evaluate
from sslbench.finetune.experiment import load_experiment
from sslbench.finetune.peft.settings import PeftSettings
from sslbench.finetune.search import finetune
from sslbench.finetune.trainer import FinetuneJob, run
from sslbench.io import read_json, read_jsonl
from sslbench.train.checkpoint import load, steps_in

from .conftest import Filterbank, Tunable, spell, words, write_split

Make = Callable[..., FinetuneConfig]


@pytest.mark.parametrize("head", ["blstm", "linear"])
def test_overfits_to_zero_errors(make_config: Make, head: str) -> None:
    lr, dim = (0.05, 0) if head == "linear" else (0.01, 32)
    config = make_config(
        head=head, lr=lr, projection_dim=dim, steps=120, eval_every_steps=40, normalise="none"
    )
    done = finetune(config)
    assert done["dev_wer"] == 0.0
    assert done["params_trainable"] > 0
    assert abs(sum(done["layer_weights"]) - 1) < 1e-3
    scored = evaluate(config.exp_dir, config.dev_manifest, None)
    assert scored.total("words").errors == 0
    assert not (Path(config.exp_dir) / "features").exists()


def test_one_step_does_not_overfit(make_config: Make) -> None:
    """Positive control: the corpus needs learning."""
    assert finetune(make_config(steps=1))["dev_wer"] > 50


def test_frozen_features_are_computed_once(make_config: Make) -> None:
    Filterbank.calls = 0
    finetune(make_config(steps=40, eval_every_steps=10))
    few = Filterbank.calls
    Filterbank.calls = 0
    finetune(
        make_config(steps=40, eval_every_steps=10, cache_limit_gib=0.0, exp_dir=make_config().exp_dir + "2")
    )
    assert few < 15 < Filterbank.calls


def test_cached_and_uncached_learn_the_same(make_config: Make) -> None:
    cached = finetune(make_config(steps=20, exp_dir=make_config().exp_dir + "1"))
    direct = finetune(make_config(steps=20, exp_dir=make_config().exp_dir + "2", cache_limit_gib=0.0))
    first, second = (
        [row["loss"] for row in read_jsonl(Path(make_config().exp_dir + n) / "log.jsonl") if "loss" in row]
        for n in "12"
    )
    assert first == pytest.approx(second, rel=2e-3)  # half precision in the cache
    assert cached["dev_cer"] == pytest.approx(direct["dev_cer"], abs=5)


class _StopError(Exception):
    pass


@pytest.mark.parametrize("tune", ["frozen", "full"])
def test_resumed_equals_uninterrupted(make_config: Make, monkeypatch: pytest.MonkeyPatch, tune: str) -> None:
    """Dropout, masks and data order included: weights are equal bit by bit."""
    changes = {
        "upstream": "tunable",
        "tune": tune,
        "dropout": 0.3,
        "time_masks": 1,
        "steps": 24,
        "eval_every_steps": 8,
        "log_every_steps": 4,
    }
    whole = make_config(**changes, exp_dir=make_config().exp_dir + "-whole")
    parts = make_config(**changes, exp_dir=make_config().exp_dir + "-parts")
    run(whole)
    original = FinetuneJob.before_update

    def killed(self: FinetuneJob, step: int) -> None:
        if step == 18:
            raise _StopError
        original(self, step)

    monkeypatch.setattr(FinetuneJob, "before_update", killed)
    with pytest.raises(_StopError):
        run(parts)
    monkeypatch.setattr(FinetuneJob, "before_update", original)
    run(parts)
    states = [load(Path(c.exp_dir) / "checkpoints" / "step-00000024").model for c in (whole, parts)]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    losses = [
        [
            row["loss"]
            for row in read_jsonl(Path(c.exp_dir) / "log.jsonl")
            if row.get("loss") and row["step"] > 16
        ]
        for c in (whole, parts)
    ]
    assert losses[0] == losses[1] != []


def test_done_runs_are_skipped_and_other_settings_refused(make_config: Make) -> None:
    config = make_config(steps=3, eval_every_steps=3)
    finetune(config)
    before = (Path(config.exp_dir) / "log.jsonl").read_text()
    finetune(config)
    assert (Path(config.exp_dir) / "log.jsonl").read_text() == before
    with pytest.raises(SslbenchError, match=r"other settings: lr \(0.01 -> 0.5\)"):
        finetune(dataclasses.replace(config, lr=0.5))
    with pytest.raises(SslbenchError, match="other settings: cache_limit_gib"):  # half precision or single
        finetune(dataclasses.replace(config, cache_limit_gib=0.0))


def test_upstream_is_frozen_then_tuned(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(upstream="tunable", tune="full", upstream_freeze_steps=4, upstream_lr=1e-3, steps=8)
    seen: list[tuple[bool, torch.Tensor]] = []
    original = FinetuneJob.loss

    def spy(self: FinetuneJob, inputs: Any) -> Any:
        upstream = self.model.upstream
        assert isinstance(upstream, Tunable)
        seen.append((upstream.training, upstream.layer.weight.detach().clone()))
        return original(self, inputs)

    monkeypatch.setattr(FinetuneJob, "loss", spy)
    run(config)
    assert [training for training, _ in seen] == [False] * 4 + [True] * 4
    changed = [not torch.equal(seen[i][1], seen[i + 1][1]) for i in range(7)]
    assert changed == [False] * 4 + [True] * 3


def test_frozen_upstream_never_changes_nor_enters_the_checkpoint(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(upstream="tunable", steps=5, eval_every_steps=5)
    jobs: list[FinetuneJob] = []
    original = FinetuneJob.begin

    def spy(self: FinetuneJob, step: int) -> None:
        jobs.append(self)
        original(self, step)

    monkeypatch.setattr(FinetuneJob, "begin", spy)
    run(config)
    after = jobs[0].model.any_upstream.state_dict()
    fresh = experiment.build_recognizer(config, jobs[0].vocab).any_upstream.state_dict()
    assert after
    assert all(torch.equal(value, fresh[key]) for key, value in after.items())
    assert not any("upstream" in key for key in jobs[0].model.state_dict())


def test_an_upstream_whose_weights_changed_is_refused(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tunable, "weights", "trained")
    monkeypatch.setattr(Tunable, "weights_sha256", "a" * 64)
    config = make_config(upstream="tunable", steps=4, eval_every_steps=4)
    finetune(config)
    load_experiment(config.exp_dir)
    monkeypatch.setattr(Tunable, "weights_sha256", "b" * 64)  # exported again
    with pytest.raises(
        SslbenchError, match=r"trained \(aaaaaaaaaaaa\), which now has trained \(bbbbbbbbbbbb\)"
    ):
        load_experiment(config.exp_dir)
    (Path(config.exp_dir) / experiment.DONE).unlink()
    with pytest.raises(SslbenchError, match="train again in another folder"):
        finetune(config)  # nor does a run go on with it
    monkeypatch.setattr(Tunable, "weights", "random")  # as s3prl's names without the network
    monkeypatch.setattr(Tunable, "weights_sha256", None)
    with pytest.raises(SslbenchError, match="which now has random;"):
        load_experiment(config.exp_dir)


def test_a_run_that_does_not_say_its_weights_is_not_continued(make_config: Make) -> None:
    config = make_config(steps=4, eval_every_steps=4)
    finetune(config)
    for name in (experiment.DONE, experiment.UPSTREAM):
        (Path(config.exp_dir) / name).unlink()
    with pytest.raises(SslbenchError, match=r"exp: lacks upstream\.json"):
        finetune(config)
    assert not (Path(config.exp_dir) / experiment.UPSTREAM).exists()
    shutil.rmtree(Path(config.exp_dir) / experiment.CHECKPOINTS)  # killed before it learned anything
    finetune(config)


def test_a_run_is_continued_with_its_own_data_and_vocabulary(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = write_split(tmp_path / "own", "train", words(12, seed=1))
    config = make_config(train_manifest=str(train), steps=4, eval_every_steps=4)
    finetune(config)
    folder = Path(config.exp_dir)
    (folder / experiment.DONE).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "build_vocab", None)
        finetune(config)
    vocabulary = (folder / experiment.VOCAB).read_bytes()
    write_split(tmp_path / "own", "train", ["AB BA"] * 12)  # of which another vocabulary would be learned
    for name in (experiment.DONE, experiment.UPSTREAM):  # neither a finished run nor an unfinished one
        with pytest.raises(SslbenchError, match="begun on other content of the train manifest"):
            finetune(config)
        assert (folder / name).is_file()
        (folder / experiment.DONE).unlink(missing_ok=True)
    (folder / experiment.UPSTREAM).unlink()
    with pytest.raises(SslbenchError, match=r"lacks upstream\.json"):
        finetune(config)
    assert (folder / experiment.VOCAB).read_bytes() == vocabulary


def test_learning_rate_grid(make_config: Make) -> None:
    config = make_config(head="linear", projection_dim=0, lr_grid=[1e-6, 5e-2], steps=50, eval_every_steps=25)
    finetune(config)
    search = read_json(Path(config.exp_dir) / "search.json")
    assert search["chosen"] == "lr-0.05"
    assert search["scores"]["1e-06"] > search["scores"]["0.05"]
    assert load_experiment(config.exp_dir).config.lr == 5e-2


def test_rates_that_diverge_are_left_out(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    diverging, tried = {9.0}, []
    original = FinetuneJob.loss

    def loss(self: FinetuneJob, inputs: Any) -> Any:
        tried.append(self.config.lr)
        found = original(self, inputs)
        factor = float("nan") if self.config.lr in diverging else 1.0
        return dataclasses.replace(found, loss_sum=found.loss_sum * factor)

    monkeypatch.setattr(FinetuneJob, "loss", loss)
    config = make_config(lr_grid=[9.0, 1e-2], steps=12, eval_every_steps=12)
    finetune(config)
    search = read_json(Path(config.exp_dir) / "search.json")
    assert (search["chosen"], list(search["scores"])) == ("lr-0.01", ["0.01"])
    assert "10 updates in a row were skipped" in search["failed"]["9"]
    assert tried.count(9.0) == 10
    finetune(config)  # the same again does not try again
    assert tried.count(9.0) == 10
    assert read_json(Path(config.exp_dir) / "search.json") == search
    diverging.add(1e-2)
    with pytest.raises(SslbenchError, match="every rate of lr_grid diverged"):
        finetune(dataclasses.replace(config, exp_dir=config.exp_dir + "2"))


def test_too_short_clips_and_empty_transcripts(tmp_path: Path, make_config: Make) -> None:
    texts = [*words(22, 1), "", "ABCDEABCDE"]
    wavs = [spell(text, number) for number, text in enumerate(texts)]
    wavs[-1] = wavs[-1][:1000]  # 4 frames for 10 symbols
    train = write_split(tmp_path / "odd", "train", texts, wavs)
    config = make_config(train_manifest=str(train), steps=10, eval_every_steps=10, max_skipped_share=0.1)
    done = finetune(config)
    assert done["skipped"] == 1
    (row,) = read_jsonl(Path(config.exp_dir) / "skipped.jsonl")
    assert row["id"] == "train-23"
    assert "too short for CTC: 4 frames for 10 symbols" in row["reason"]
    with pytest.raises(SslbenchError, match="too short for CTC"):
        finetune(dataclasses.replace(config, max_skipped_share=0.0, exp_dir=config.exp_dir + "2"))


def test_unreadable_clips_are_named(tmp_path: Path, make_config: Make) -> None:
    train = write_split(tmp_path / "odd", "train", words(12, 1))
    (tmp_path / "odd" / "train" / "audio" / "train-3.wav").unlink()
    config = make_config(train_manifest=str(train), steps=4, eval_every_steps=4, max_skipped_share=0.2)
    assert finetune(config)["skipped"] == 1
    assert "train-3" in (Path(config.exp_dir) / "skipped.jsonl").read_text()


def test_a_loss_that_is_not_finite_is_skipped_then_fatal(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(steps=30, eval_every_steps=30)
    calls = []
    original = FinetuneJob.loss

    def sometimes(*args: object) -> object:
        found = original(*args)  # type: ignore[arg-type]
        calls.append(1)
        return (
            dataclasses.replace(found, loss_sum=found.loss_sum * float("nan"))
            if len(calls) in (3, 4)
            else found
        )

    monkeypatch.setattr(FinetuneJob, "loss", sometimes)
    finetune(config)
    events = [row for row in read_jsonl(Path(config.exp_dir) / "log.jsonl") if "event" in row]
    assert [row["step"] for row in events] == [3, 4]
    assert all(
        np.isfinite(row["loss"]) for row in read_jsonl(Path(config.exp_dir) / "log.jsonl") if "loss" in row
    )
    monkeypatch.setattr(
        FinetuneJob,
        "loss",
        lambda *a: dataclasses.replace(original(*a), loss_sum=original(*a).loss_sum * np.nan),
    )
    with pytest.raises(SslbenchError, match="10 updates in a row"):
        finetune(dataclasses.replace(config, exp_dir=config.exp_dir + "2"))


def test_batches_are_accumulated(make_config: Make) -> None:
    used = []
    for accum in (1, 2):
        config = make_config(steps=3, eval_every_steps=3, accum=accum, max_duration_s=4.0, utterance_log=True)
        config = dataclasses.replace(config, exp_dir=f"{config.exp_dir}{accum}")
        finetune(config)
        used.append(sum(len(row["ids"]) for row in read_jsonl(Path(config.exp_dir) / "utterances-0.jsonl")))
    assert 1.5 * used[0] < used[1] < 2.5 * used[0]


def test_checkpoints_are_pruned_and_best_is_kept(make_config: Make) -> None:
    config = make_config(steps=25, eval_every_steps=5)
    done = finetune(config)
    assert steps_in(Path(config.exp_dir) / "checkpoints") == [20, 25]
    assert steps_in(Path(config.exp_dir) / "best") == [done["step"]]
    rows = [row for row in read_jsonl(Path(config.exp_dir) / "log.jsonl") if "dev_wer" in row]
    assert done["dev_wer"] == min(row["dev_wer"] for row in rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_duration_s": 0.0}, "max_duration_s must be above 0"),
        ({"time_masks": -1}, "time_masks must be at least 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"blstm_layers": 0}, "the blstm head needs projection_dim, blstm_layers"),
        ({"keep_checkpoints": 1}, "keep_checkpoints must be at least 2: a damaged newest"),
        ({"accum": 0, "steps": 0}, "steps must be at least 1; accum must be at least 1"),
    ],
)
def test_useless_settings_are_named(make_config: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SslbenchError, match=message):
        finetune(make_config(**changes))


def test_missing_and_useless_inputs(make_config: Make, tmp_path: Path) -> None:
    with pytest.raises(SslbenchError, match="train_manifest is missing"):
        finetune(make_config(train_manifest=""))
    with pytest.raises(SslbenchError, match="upstream would never learn"):
        finetune(make_config(tune="full", upstream="tunable", upstream_freeze_steps=60))
    for tune in ("conv_adapter", "ladder"):
        with pytest.raises(SslbenchError, match=r"kernel 4 is even"):
            finetune(make_config(tune=tune, peft=PeftSettings(kernel=4)))
    assert not Path(make_config().exp_dir).exists()
    make_config(tune="full", upstream="tunable", upstream_freeze_steps=59).check()
    make_config(head="linear", projection_dim=0, blstm_layers=0).check()
    with pytest.raises(SslbenchError, match="no such manifest"):
        finetune(make_config(dev_manifest=str(tmp_path / "none.jsonl.gz")))
    with pytest.raises(SslbenchError, match="holds no trained recognizer"):
        load_experiment(tmp_path / "none")
    silent = write_split(tmp_path / "silent", "train", ["", ""])
    with pytest.raises(SslbenchError, match="training text is empty"):
        finetune(make_config(train_manifest=str(silent), exp_dir=str(tmp_path / "e2")))


def test_row_has_everything(make_config: Make, tmp_path: Path) -> None:
    from sslbench.cli import score as cli
    from sslbench.report import store

    config = make_config(steps=4, eval_every_steps=4, lr_grid=[1e-2])
    finetune(config)
    options = cli.row_options("tones", str(tmp_path / "results"), "smoke", "asr", "filterbank")
    evaluate(config.exp_dir, config.dev_manifest, options)
    row = store.load(tmp_path / "results" / "tones" / "asr.json")
    assert list(row.metrics)[:3] == ["wer", "cer", "rtf"]
    assert row.metrics["wer"].low is not None
    assert (row.data.split, row.data.synthetic, row.weights) == ("dev", True, "none")
    assert row.search is not None
    assert row.search.lr == 1e-2
    assert {"wall_s", "params_trainable", "train_steps"} <= set(row.cost)
    for path in row.artifacts.values():
        assert (tmp_path / "results" / "tones" / path).exists()
    hyp = Path(config.exp_dir) / "hyp" / "dev.jsonl"
    assert len([json.loads(line) for line in hyp.read_text().splitlines()]) == 6
    with pytest.raises(SslbenchError, match="was made with filterbank"):
        cli.main([config.dev_manifest, str(hyp), "--system", "x", "--results", "r", "--upstream", "hubert"])
    with pytest.raises(SslbenchError, match="needs both"):
        cli.main([config.dev_manifest, str(hyp), "--system", "x"])


def test_bf16_learns(make_config: Make) -> None:
    config = make_config(
        precision="bf16", head="linear", projection_dim=0, lr=5e-2, steps=40, eval_every_steps=40
    )
    assert finetune(config)["dev_cer"] < 60
    assert load_experiment(config.exp_dir).model.head.output.weight.dtype == torch.float32


def test_damaged_weights_are_refused(make_config: Make) -> None:
    config = make_config(steps=2, eval_every_steps=2)
    finetune(config)
    (weights,) = Path(config.exp_dir).glob("best/*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CorruptFileError, match="does not match its sha256"):
        load_experiment(config.exp_dir)


def test_a_grid_and_a_single_run_do_not_mix(make_config: Make) -> None:
    finetune(make_config(steps=1))
    with pytest.raises(SslbenchError, match="holds a run without lr_grid"):
        finetune(make_config(steps=1, lr_grid=[1e-2]))
    grid = make_config(steps=1, lr_grid=[1e-2], exp_dir=make_config().exp_dir + "-grid")
    finetune(grid)
    with pytest.raises(SslbenchError, match="holds a run with lr_grid"):
        finetune(dataclasses.replace(grid, lr_grid=[]))
    finetune(grid)
