"""`--engine s3prl`: its unmodified runner beside our engine on one corpus, in one table."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from official_layouts import fluent_commands, iemocap, speech_commands, voxceleb

from sslbench.cli import main
from sslbench.errors import SslbenchError
from sslbench.probe.runner import Named, ProbeSettings
from sslbench.probe.s3prl_engine import (
    Template,
    _filled,
    _train_and_decode,
    check_root,
    engine_tasks,
    load_template,
    runner_config,
)
from sslbench.probe.task import ProbeTask, load_task
from sslbench.report import store

STEPS = 40


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


def emotions(root: Path) -> Path:
    """Five sessions with s3prl's lists of clips, as its preprocessing writes them."""
    iemocap(root)
    clips: dict[str, list[dict[str, str]]] = {}
    for session in (f"Session{n}" for n in range(1, 6)):
        (path,) = (root / session / "dialog" / "EmoEvaluation").iterdir()
        heard = [line.split("\t") for line in path.read_text().splitlines() if line.startswith("[")]
        clips[session] = [
            {
                "path": f"{session}/sentences/wav/{words[1].rpartition('_')[0]}/{words[1]}.wav",
                "label": words[2].replace("exc", "hap"),
            }
            for words in heard
            if words[2] != "fru" and "not_there" not in words[1]
        ]
    for session, own in clips.items():
        folder = root / "meta_data" / session
        folder.mkdir(parents=True)
        others = [clip for other in clips if other != session for clip in clips[other]]
        for part, listed in (("train", others), ("test", own)):
            content = {"labels": {"neu": 0, "hap": 1, "ang": 2, "sad": 3}, "meta_data": listed}
            (folder / f"{part}_meta_data.json").write_text(json.dumps(content))
    return root


def speakers(root: Path) -> Path:
    """VoxCeleb1 under the name that s3prl gives its list."""
    listed = (voxceleb(root) / "iden_split.txt").read_text()
    (root / "veri_test_class.txt").write_text(listed)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout", "folds", "clips"),
    [
        ("ic", fluent_commands, [""], 6),
        ("ks", speech_commands, [""], 36),
        ("er", emotions, ["fold2", "fold5"], 20),
        ("sid", speakers, [""], 12),
    ],
)
def test_answers_are_scored_as_s3prl_scores_them(
    name: str, layout: Callable[[Path], Path], folds: list[str], clips: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Labels by clip in both engines' rows. (CMVN would leave means of zero.)"""
    spec = importlib.util.find_spec("s3prl")
    if spec is None or spec.origin is None:
        pytest.skip("s3prl is not installed")
    pytest.importorskip("pandas")

    def shorter(name: str, tier: str) -> ProbeTask:
        task = load_task(name, tier)
        task.protocol = replace(task.protocol, steps=STEPS, eval_every=STEPS, batch_clips=8)
        found = task.folds
        monkeypatch.setattr(task, "folds", lambda root: {fold: found(root)[fold] for fold in folds})
        return task

    monkeypatch.setattr("sslbench.probe.task.load_task", shorter)
    words = ["superb", "run", "--upstream", "fbank_no_cmvn", "--tasks", name, "--lrs", "1e-2"]
    words += ["--data", str(layout(tmp_path / "data")), "--out", str(tmp_path / "exp")]
    words += ["--results", str(tmp_path / "rows")]
    assert main(words) == 0
    assert main([*words, "--engine", "s3prl", "--s3prl-root", str(Path(spec.origin).parent.parent)]) == 0
    rows = {row.system: row for row in store.load_all(tmp_path / "rows")}
    ours, theirs = rows["fbank_no_cmvn"], rows["fbank_no_cmvn.s3prl"]
    assert ours.data == theirs.data
    assert ours.metrics["acc"].n == theirs.metrics["acc"].n == clips
    assert ours.metrics["acc"].value > 60  # every label has its tone
    assert theirs.metrics["acc"].value > 60
    logs = [
        (tmp_path / "exp" / f"{name}.s3prl" / fold / "log.log").read_text().splitlines() for fold in folds
    ]
    theirs_say = sum(float(log[-1].split(": ")[1]) for log in logs) / len(folds)
    assert theirs.metrics["acc"].value == pytest.approx(100 * theirs_say, abs=1e-3)


def test_the_help_names_the_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["superb", "run", "--help"])
    assert f"(tasks {', '.join(engine_tasks())})" in " ".join(capsys.readouterr().out.split())


def test_wrong_roots_and_tasks_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = Template("ctc", 1e-2, "dev-best.ckpt", "test-hyp.ark", {}, ["downstream/ctc/corpus/x.py"])
    with pytest.raises(SslbenchError, match=r"lacks s3prl/run_downstream.py, .*git clone"):
        check_root(tmp_path, template)
    complete = tmp_path / "clone"
    for file in ("run_downstream.py", "downstream/emotion/expert.py"):
        (complete / "s3prl" / file).parent.mkdir(parents=True, exist_ok=True)
        (complete / "s3prl" / file).touch()
    words = ["superb", "run", "--upstream", "fbank", "--data", str(tmp_path), "--out", str(tmp_path)]
    words += ["--results", str(tmp_path), "--engine", "s3prl"]
    for more, complaint in (
        (
            ["--tasks", "qbe", "--s3prl-root", str(tmp_path)],
            "does not know this task, but er, ic, ks, pr, sd, sid; leave",
        ),
        (["--tasks", "sd"], "--s3prl_root"),
        (["--tasks", "er", "--s3prl-root", str(complete)], "lacks meta_data, which s3prl's runner reads"),
    ):
        assert main([*words, *more]) == 2
        assert complaint in capsys.readouterr().err


def test_an_old_checkpoint_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed run at another rate leaves one, and s3prl writes its best on strict improvement only."""
    (tmp_path / "dev-best.ckpt").write_text("of another run")
    decoded: list[str] = []

    def runner(words: list[str], folder: Path, root: Path) -> Path:
        if "train" in words:
            (folder / "states-40.ckpt").write_text("new")
        else:
            decoded.append(Path(words[words.index("-e") + 1]).name)
        return folder

    monkeypatch.setattr("sslbench.probe.s3prl_engine.call_runner", runner)
    template = Template("emotion", 1e-2, "dev-best.ckpt", "x", {})
    settings = ProbeSettings(tmp_path, tmp_path, tmp_path)
    _train_and_decode(template, Named("fbank", "fbank"), settings, tmp_path, tmp_path, None, "key")
    assert decoded == ["states-40.ckpt"]


def test_phones_come_from_the_lexica_that_lie_there(tmp_path: Path) -> None:
    task = load_task("pr", "full")
    template = load_template(task)
    with pytest.raises(SslbenchError, match="s3prl's runner reads LibriSpeech's own folders and a lexicon"):
        runner_config(task, template, tmp_path, 1e-2)
    chapter = tmp_path / "LibriSpeech" / "dev-clean" / "1" / "2"
    chapter.mkdir(parents=True)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 A\n")
    names = [f"librispeech-lexicon-{which}-g2p.txt" for which in ("200k", "allothers")]
    for name in names:
        (tmp_path / name).write_text("A AH0\n")
    corpus = runner_config(task, template, tmp_path, 1e-2)["downstream_expert"]["corpus"]
    assert corpus["path"] == str(tmp_path / "LibriSpeech")
    assert corpus["lexicon"] == [str(tmp_path / name) for name in names]


def test_holes_keep_their_type() -> None:
    filled = _filled({"a": "${steps}", "b": ["${data}/x", 3]}, {"steps": 7, "data": "/d"})
    assert filled == {"a": 7, "b": ["/d/x", 3]}
