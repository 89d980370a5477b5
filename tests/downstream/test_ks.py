"""Keyword spotting's data: the official layout, labels of a corpus, what is said about missing parts."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from official_layouts import speech_commands, tone

from sslbench.cli import main
from sslbench.downstream.ks.data import CLASSES, NOISE_FOLDER, hashed_part
from sslbench.downstream.ks.task import Task
from sslbench.errors import SslbenchError
from sslbench.probe.runner import Named, ProbeSettings, run_task, upstream_loader
from sslbench.probe.task import Prediction


def test_official_layout(tmp_path: Path) -> None:
    task = Task("full")
    parts = task.prepare(speech_commands(tmp_path))
    counts = {part: Counter(e.reference for e in some) for part, some in parts.items()}
    assert counts["train"]["yes"] == 6
    assert counts["train"]["_unknown_"] == 12
    assert counts["train"]["_silence_"] == counts["dev"]["_silence_"] == 2 * 60
    assert counts["test"] == dict.fromkeys(CLASSES, 3)
    assert parts["test"][0].cut.custom == {
        "corpus": "speech_commands_v0.01 (134 of 67808 files)",
        "synthetic": False,
    }
    assert len({e.id for some in parts.values() for e in some}) == sum(map(len, parts.values()))
    silence = next(e for e in parts["train"] if e.reference == "_silence_")
    assert silence.cut.num_samples == 16_000
    stream = task.batches(parts["train"], 0)
    drawn = Counter(parts["train"][i].reference for _ in range(200) for i in next(stream))
    assert max(drawn.values()) < 1.3 * min(drawn.values())  # all classes alike
    torch.testing.assert_close(task.waveform(torch.ones(3)), torch.full((3,), 0.70795), atol=1e-5, rtol=0)


def test_without_the_test_archive_other_speakers_stand_in(tmp_path: Path) -> None:
    """Below tier full; the row does not call that the test set."""
    root = speech_commands(tmp_path)
    shutil.rmtree(root / "speech_commands_test_set_v0.01")
    task = Task("smoke")
    parts = task.prepare(root)
    heard = {part: {e.speaker for e in some if e.reference != "_silence_"} for part, some in parts.items()}
    assert not heard["test"] & (heard["train"] | heard["dev"])
    counts = Counter(e.reference for e in parts["test"])
    mean = sum(counts[word] for word in CLASSES[:10]) / 10
    assert counts["_unknown_"] == counts["_silence_"] == pytest.approx(mean, abs=1)
    row = run_task(
        task, upstream_loader("fbank", None), Named("fbank", "fbank"), ProbeSettings(root, tmp_path, tmp_path)
    )
    assert row.data.split == "held-out speakers"
    # the archive's own test range is preferred: training then gives nobody away
    unused = next(n for n in (f"{i:08x}_nohash_0.wav" for i in range(999)) if hashed_part(n) == "")
    for number, word in enumerate(CLASSES[:10]):
        tone(root / "speech_commands_v0.01" / word / unused, 300 + 250 * number)
    whole = Task("smoke").prepare(root)
    assert {e.speaker for e in whole["test"] if e.reference != "_silence_"} == {unused[:8]}
    assert len(whole["train"]) > len(parts["train"])


def test_dev_counts_classes_alike() -> None:
    rows = [Prediction(str(i), "yes", "yes", "s") for i in range(9)] + [Prediction("x", "yes", "no", "s")]
    assert Task("full").selection(rows) == 50
    assert Task("full").metrics(rows)["acc"].value == 90


def test_missing_parts_are_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = speech_commands(tmp_path)
    shutil.rmtree(root / "speech_commands_v0.01" / "stop")
    shutil.rmtree(root / "speech_commands_v0.01" / NOISE_FOLDER)
    shutil.rmtree(root / "speech_commands_test_set_v0.01")
    with pytest.raises(
        SslbenchError, match=r"lacks speech_commands_test_set_v0.01, .*stop, .*_background_noise_"
    ):
        Task("full").prepare(root)
    assert main(["superb", "check", "--tasks", "ks", "--data", str(root)]) == 1
    assert "missing  ks: Speech Commands v0.01" in capsys.readouterr().out
    assert main(["superb", "check", "--tasks", "ks", "--roots", f"ks={tmp_path / 'no'}"]) == 1
    assert "no such data folder" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", [0.01, 0.04, 0.06, 0.08])
def test_clips_of_ten_to_eighty_ms(seconds: float, tmp_path: Path) -> None:
    """From s3prl's trouble zone: 961 to 1039 samples raise in its featurizer."""
    root = speech_commands(tmp_path / "sc", seconds)
    task = Task("smoke")
    task.protocol.steps, task.protocol.eval_every, task.protocol.lr_grid = 20, 20, [1e-2]
    settings = ProbeSettings(root, tmp_path / "exp", tmp_path / "results")
    row = run_task(task, upstream_loader("hubert_k2ssl_tiny", None), Named("h", "h"), settings)
    assert row.metrics["acc"].n == 36


def test_unreadable_files_are_refused_when_many(tmp_path: Path) -> None:
    root = speech_commands(tmp_path)
    for path in sorted((root / "speech_commands_test_set_v0.01" / "yes").iterdir()):
        path.write_bytes(b"junk")
    with pytest.raises(SslbenchError, match=r"3 of 36 files cannot be used, more than 1 %"):
        Task("full").prepare(root)


def test_a_damaged_noise_is_named(tmp_path: Path) -> None:
    root = speech_commands(tmp_path)
    (root / "speech_commands_v0.01" / NOISE_FOLDER / "b.wav").write_bytes(b"junk")
    with pytest.raises(SslbenchError, match=r"_background_noise_/b.wav: cannot be read as audio"):
        Task("full").prepare(root)


def test_corpus_with_keyword_labels(mini_corpus: Path) -> None:
    parts = Task("smoke").prepare(mini_corpus)
    assert all(parts.values())
    assert {e.reference for e in parts["train"]} <= set(CLASSES)


@pytest.mark.slow
def test_real_speech_commands(shared_dir: Path, tmp_path: Path) -> None:
    """Real clips, without the test archive: filterbanks beat chance, and say so with an interval."""
    pytest.importorskip("s3prl")
    root = shared_dir / "data" / "speech_commands_mini"
    settings = ProbeSettings(root, tmp_path / "exp", tmp_path / "results")
    name = "fbank_no_cmvn"  # CMVN would leave means of zero
    row = run_task(Task("smoke"), upstream_loader(name, None), Named(name, name), settings)
    assert not row.data.synthetic
    assert row.metrics["acc"].low is not None
    assert row.metrics["acc"].value > 100 / 12
