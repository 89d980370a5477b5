"""`--engine s3prl`: its unmodified runner beside our engine on one corpus, in one table."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from official_layouts import fluent_commands

from sslbench.cli import main
from sslbench.errors import SslbenchError
from sslbench.probe.s3prl_engine import Template, _check_root, _filled, engine_tasks
from sslbench.probe.task import ProbeTask, load_task
from sslbench.report import store


def conversations(root: Path) -> Path:
    """Two speakers, one low and one high tone, as Kaldi-style folders."""
    for part, count in (("train", 12), ("dev", 3), ("test", 4)):
        folder = root / part
        folder.mkdir(parents=True)
        files: dict[str, list[str]] = {n: [] for n in ("wav.scp", "segments", "utt2spk", "reco2dur", "rttm")}
        for number in range(count):
            rng = np.random.default_rng(number + 97 * count)
            times = np.arange(48_000) / 16_000
            wave = rng.normal(0, 0.003, len(times))
            for speaker, (pitch, start) in {"low": (220.0, 0.1), "high": (1900.0, 1.3)}.items():
                start += float(rng.uniform(0, 0.3))
                end = start + float(rng.uniform(0.8, 1.2))
                wave += 0.3 * np.sin(2 * np.pi * pitch * times) * ((times >= start) & (times < end))
                utt = f"{part}{number}-{speaker}"
                files["segments"].append(f"{utt} {part}{number} {start:.3f} {end:.3f}")
                files["utt2spk"].append(f"{utt} {speaker}")
                files["rttm"].append(
                    f"SPEAKER {part}{number} 1 {start:.3f} {end - start:.3f} <NA> <NA> {speaker} <NA>"
                )
            soundfile.write(folder / f"{part}{number}.wav", wave, 16_000)
            files["wav.scp"].append(f"{part}{number} {folder / f'{part}{number}.wav'}")
            files["reco2dur"].append(f"{part}{number} 3.0")
        for name, lines in files.items():
            (folder / name).write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.slow
def test_both_engines_are_in_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec("s3prl")
    if spec is None or spec.origin is None:
        pytest.skip("s3prl is not installed")
    pytest.importorskip("h5py")
    root = Path(spec.origin).parent.parent

    def shorter(name: str, tier: str) -> ProbeTask:
        task = load_task(name, tier)
        task.protocol = replace(task.protocol, steps=40, eval_every=40)
        return task

    monkeypatch.setattr("sslbench.probe.task.load_task", shorter)
    data, results = conversations(tmp_path / "data"), tmp_path / "results"
    words = ["superb", "run", "--upstream", "hubert_k2ssl_tiny", "--system", "tiny", "--tasks", "sd"]
    words += ["--data", str(data), "--out", str(tmp_path / "exp"), "--results", str(results), "--lrs", "1e-2"]
    assert main(words) == 0
    assert main([*words, "--engine", "s3prl", "--s3prl-root", str(root)]) == 0
    rows = {row.system: row for row in store.load_all(results)}
    ours, theirs = rows["tiny"], rows["tiny.s3prl"]
    assert theirs.methods["engine"].startswith("s3prl 0.4")
    assert ours.data == theirs.data
    # the same protocol from other initial weights and another order: close, and far from guessing
    assert theirs.metrics["frame_acc"].value > 85
    assert ours.metrics["frame_acc"].value == pytest.approx(theirs.metrics["frame_acc"].value, abs=10)
    capsys.readouterr()
    assert main(["superb", "score", "--results", str(results)]) == 0
    printed = capsys.readouterr().out
    assert "tiny" in printed.splitlines()[0]
    assert "tiny.s3prl" in printed.splitlines()[0]
    train_log = tmp_path / "exp" / "sd.s3prl" / "train.log"
    stamp = train_log.stat().st_mtime_ns
    assert main([*words, "--engine", "s3prl", "--s3prl-root", str(root)]) == 0  # finished: not run again
    assert train_log.stat().st_mtime_ns == stamp
    capsys.readouterr()
    wav = data / "test" / "test0.wav"
    soundfile.write(wav, 0.5 * soundfile.read(wav)[0], 16_000)  # another corpus under the same name
    assert main([*words, "--engine", "s3prl", "--s3prl-root", str(root)]) == 2
    assert "holds another run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_of_answers_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IC: three labels per clip, each row of s3prl's table one of ours. (CMVN would leave means of zero.)"""
    spec = importlib.util.find_spec("s3prl")
    if spec is None or spec.origin is None:
        pytest.skip("s3prl is not installed")
    pytest.importorskip("pandas")

    def shorter(name: str, tier: str) -> ProbeTask:
        task = load_task(name, tier)
        task.protocol = replace(task.protocol, steps=400, eval_every=200, batch_clips=8)
        return task

    monkeypatch.setattr("sslbench.probe.task.load_task", shorter)
    words = [
        "superb",
        "run",
        "--upstream",
        "fbank_no_cmvn",
        "--tasks",
        "ic",
        "--data",
        str(fluent_commands(tmp_path)),
    ]
    words += ["--out", str(tmp_path / "exp"), "--results", str(tmp_path / "rows"), "--lrs", "1e-2"]
    root = str(Path(spec.origin).parent.parent)
    assert main([*words, "--engine", "s3prl", "--s3prl-root", root]) == 0
    (row,) = store.load_all(tmp_path / "rows")
    assert (row.system, row.metrics["acc"].n) == ("fbank_no_cmvn.s3prl", 6)
    assert row.metrics["acc"].value > 60  # three intents in three tones
    log = (tmp_path / "exp" / "ic.s3prl" / "log.log").read_text().splitlines()
    assert 100 * float(log[-1].split(": ")[1]) == pytest.approx(row.metrics["acc"].value, abs=1e-3)


def test_the_help_names_the_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["superb", "run", "--help"])
    assert f"(tasks {', '.join(engine_tasks())})" in " ".join(capsys.readouterr().out.split())


def test_wrong_roots_and_tasks_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = Template("ctc", 1e-2, "dev-best.ckpt", "test-hyp.ark", {}, ["downstream/ctc/corpus/x.py"])
    with pytest.raises(SslbenchError, match=r"lacks s3prl/run_downstream.py, .*git clone"):
        _check_root(tmp_path, template)
    words = ["superb", "run", "--upstream", "fbank", "--data", str(tmp_path), "--out", str(tmp_path)]
    words += ["--results", str(tmp_path), "--engine", "s3prl"]
    for more, complaint in (
        (["--tasks", "qbe", "--s3prl-root", str(tmp_path)], "does not know this task, but ic, pr, sd; write"),
        (["--tasks", "sd"], "--s3prl_root"),
    ):
        assert main([*words, *more]) == 2
        assert complaint in capsys.readouterr().err


def test_holes_keep_their_type() -> None:
    filled = _filled({"a": "${steps}", "b": ["${data}/x", 3]}, {"steps": 7, "data": "/d"})
    assert filled == {"a": 7, "b": ["/d/x", 3]}
