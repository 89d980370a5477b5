"""An ESPnet run is of one content only, and its row counts every cut of the test manifest."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment

from sslbench.cli import main
from sslbench.data.manifests import write_manifest
from sslbench.errors import SslbenchError
from sslbench.integrations.espnet import asr
from sslbench.integrations.espnet.asr import AsrRun
from sslbench.integrations.espnet.claim import claim
from sslbench.integrations.espnet.export import export
from sslbench.integrations.espnet.row import write_row
from sslbench.io import read_json, read_jsonl, write_json, write_text, write_yaml
from sslbench.report.predictions import read_items
from sslbench.report.store import load


def make_cut(folder: Path, name: str, parts: dict[str, tuple[float, float]]) -> MonoCut:
    """Two seconds of noise in which each text is said from one second to another."""
    path = folder / f"{name}.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype("float32"), 16_000)
    recording = Recording.from_file(path, recording_id=name)
    said = [
        SupervisionSegment(f"{name}-{i}", name, start, end - start, text=text, speaker=name[0])
        for i, (text, (start, end)) in enumerate(parts.items())
    ]
    return MonoCut(name, 0.0, 2.0, 0, recording=recording, supervisions=said)


@pytest.fixture
def settings(tmp_path: Path) -> AsrRun:
    """Whole, in two pieces, silent, and with a file that is gone."""
    cuts = [
        make_cut(tmp_path, "x1", {"ONE TWO THREE": (0.0, 2.0)}),
        make_cut(tmp_path, "b-2", {"FOUR": (0.0, 0.9), "FIVE SIX": (1.0, 2.0)}),
        make_cut(tmp_path, "a-3", {"": (0.0, 2.0)}),
        make_cut(tmp_path, "a-4", {"SEVEN EIGHT": (0.0, 2.0)}),
    ]
    cuts[0].supervisions[0].speaker = "c"  # so that Kaldi's id of it is another
    for split in ("train", "dev", "test"):
        write_manifest(cuts, tmp_path / f"{split}.jsonl.gz")
    write_text(tmp_path / "train.yaml", "encoder: rnn\noptim_conf: {lr: 0.1}\n")
    splits = {split: str(tmp_path / f"{split}.jsonl.gz") for split in ("train", "dev", "test")}
    return AsrRun("fbank", out=str(tmp_path / "exp"), config=str(tmp_path / "train.yaml"), **splits)


def test_a_folder_holds_one_content(settings: AsrRun, tmp_path: Path) -> None:
    pytest.importorskip("s3prl")
    out = tmp_path / "exp"
    claim(out, settings)
    claim(out, settings)
    write_text(tmp_path / "train.yaml", "# said otherwise\noptim_conf: {lr: 0.1}\nencoder: rnn\n")
    claim(out, settings)
    write_text(tmp_path / "train.yaml", "encoder: rnn\noptim_conf: {lr: 0.2}\n")
    with pytest.raises(SslbenchError, match="with another content of config;"):
        claim(out, settings)
    with pytest.raises(
        SslbenchError, match="with another units, upstream, content of config, content of upstream"
    ):
        claim(out, replace(settings, upstream="zipformer_tiny", units="bpe"))
    write_text(tmp_path / "train.yaml", "encoder: rnn\noptim_conf: {lr: 0.1}\n")
    write_manifest([make_cut(tmp_path, "b-9", {"NINE": (0.0, 2.0)})], tmp_path / "test.jsonl.gz")
    with pytest.raises(SslbenchError, match="with another content of test;"):
        claim(out, settings)


@pytest.mark.parametrize("ngpu", [0, 1, 4])
def test_several_gpus_have_a_process_each(settings: AsrRun, tmp_path: Path, ngpu: int) -> None:
    """As ESPnet's own parser understands the words."""
    pytest.importorskip("espnet2")
    from espnet2.bin.asr_train import get_parser
    from espnet2.train.distributed_utils import resolve_distributed_mode

    words = [str(word) for word in asr._train_words(tmp_path, replace(settings, ngpu=ngpu))]
    args = get_parser().parse_args(words)
    resolve_distributed_mode(args)
    assert (args.distributed, args.multiprocessing_distributed) == (ngpu > 1, ngpu > 1)


def test_random_weights_are_refused_where_a_row_would_be_official(settings: AsrRun, tmp_path: Path) -> None:
    words = [
        "espnet",
        "asr",
        "--system",
        "x",
        "--results",
        str(tmp_path),
        "--out",
        settings.out,
        "--tier",
        "full",
    ]
    words += ["--train", settings.train, "--dev", settings.dev, "--test", settings.test]
    for package in ("s3prl", "espnet2"):
        pytest.importorskip(package)
    assert main([*words, "--upstream", "zipformer_tiny", "--stop_after", "export"]) == 2
    assert not (tmp_path / "exp").exists()


def test_the_row_counts_every_cut_of_the_manifest(settings: AsrRun, tmp_path: Path) -> None:
    for package in ("s3prl", "espnet"):
        pytest.importorskip(package)
    out = tmp_path / "exp"
    (tmp_path / "a-4.wav").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sslbench.data.skips.SHARE_MEANS_SOMETHING_FROM", 10**6)
        patch.setattr("sslbench.data.skips.SkipLog.check", lambda self: None)  # one cut of four is too many
        export(settings.test, out / "data" / "test", keep_silent=True)
    write_yaml(out / "train.yaml", {"encoder": "rnn", "optim_conf": {"lr": 0.1}})
    for stage, wall_s in (("collect_stats", 1.0), ("train", 2.0), ("decode", 3.0)):
        write_json(out / f"DONE.{stage}", {"wall_s": wall_s})
    heard = "a-3 UH\nb-2-0 FOUR\nb-2-1 FIVE SICK\nc-x1 ONE TWO THREE\n"
    write_text(out / "decode" / "text", heard)
    write_row(settings, out / "decode" / "text", "system", tmp_path / "results", "smoke")
    row = load(tmp_path / "results" / "system" / "asr_espnet.json")
    assert row.metrics["wer"].value == pytest.approx(100 * 4 / 8)  # sub SICK, ins UH, SEVEN EIGHT not heard
    assert [round(row.metrics[kind].value * 8 / 100) for kind in ("sub", "del", "ins")] == [1, 2, 1]
    assert row.metrics["wer"].n == 4
    assert row.metrics["rtf"].value == pytest.approx(3.0 / 6.0)  # the lost file was not heard
    assert (row.cost["skipped"], row.cost["wall_s"], row.cost["decode_wall_s"]) == (1, 3.0, 3.0)
    assert (row.methods["text_normaliser"], row.methods["counts"]) == ("upper", "levenshtein")
    items = read_items(row, tmp_path / "results")
    assert isinstance(items, dict)
    assert (items["b-2"].reference, items["b-2"].hypothesis) == ("FOUR FIVE SIX", "FOUR FIVE SICK")
    assert next(iter(read_jsonl(out / "hyp" / "test.jsonl"))) == {"id": "x1", "text": "ONE TWO THREE"}


ESPNET = """#!/bin/sh
echo ran
rm $SPENT
for i in $(seq 200); do test -e $SPENT && exit $STATUS; sleep 0.05; done
exit 9  # it would not be known what a killed run has cost
"""


@pytest.mark.parametrize(
    ("stage", "checkpoint", "earlier_s"), [("train", True, 1000), ("train", False, 0), ("decode", True, 0)]
)
def test_a_resumed_training_costs_what_all_its_processes_took(
    stage: str, checkpoint: bool, earlier_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a training goes on where it was, and only from a checkpoint; else the last run alone counts."""
    spent = tmp_path / f"spent.{stage}.json"
    write_json(spent, {"wall_s": 1000.0})
    if checkpoint:
        write_text(tmp_path / "model" / "checkpoint.pth", "")
    write_text(tmp_path / "espnet", ESPNET)
    (tmp_path / "espnet").chmod(0o755)
    monkeypatch.setenv("SPENT", str(spent))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "espnet"))
    monkeypatch.setattr(asr, "ACCOUNT_S", 0.05)
    monkeypatch.setenv("STATUS", "3")
    with pytest.raises(SslbenchError, match=f"{stage} stopped with status 3"):
        asr._stage(tmp_path, stage, "asr_train", [])
    first_s = read_json(spent)["wall_s"]
    monkeypatch.setenv("STATUS", "0")
    asr._stage(tmp_path, stage, "asr_train", [])
    taken_s = asr.stage_seconds(tmp_path)[stage]
    assert earlier_s < first_s < earlier_s + 100
    assert (first_s if earlier_s else 0) < taken_s < earlier_s + 200
    assert (tmp_path / f"{stage}.log").read_text() == "ran\nran\n"
