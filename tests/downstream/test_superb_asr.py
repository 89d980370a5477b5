"""SUPERB's ASR: labels, batches, LibriSpeech's own layout, empty transcripts, very short clips."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
from probe_fakes import Spectral

from sslbench import registry
from sslbench.downstream.superb_asr.task import Task
from sslbench.errors import SslbenchError
from sslbench.probe.runner import Named, ProbeSettings, run_task
from sslbench.probe.task import Prediction

SPLITS = ("train-clean-100", "dev-clean", "test-clean")


def librispeech(root: Path, samples: int = 9_600) -> Path:
    for chapter, split in enumerate(SPLITS):
        folder = root / "LibriSpeech" / split / "7" / str(chapter)
        folder.mkdir(parents=True)
        texts = ["AH A", "HA HA", ""]
        lines = [f"7-{chapter}-{i:04d} {text}".strip() for i, text in enumerate(texts)]
        (folder / f"7-{chapter}.trans.txt").write_text("\n".join(lines) + "\n")
        for number in range(3):
            noise = np.random.default_rng(number).normal(0, 0.1, samples)
            soundfile.write(folder / f"7-{chapter}-{number:04d}.flac", noise, 16_000)
    return root


def test_librispeech_is_read_as_it_is_unpacked(tmp_path: Path) -> None:
    root = librispeech(tmp_path)
    assert registry.tasks()["superb_asr"].load() is Task
    for given in (root, root / "LibriSpeech"):
        parts = Task("full").prepare(given)
        assert [e.reference for e in parts["test"]] == ["AH A", "HA HA", ""]
        assert [e.reference for e in parts["train"]] == ["AH A", "HA HA"]  # nothing is learned from silence
        assert parts["test"][0].speaker == "7"
        assert parts["test"][0].cut.custom["corpus"] == "librispeech (9 of 33862 files)"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    root = librispeech(tmp_path)
    home = root / "LibriSpeech"
    (home / "dev-clean").rename(home / "other")
    with pytest.raises(SslbenchError, match=r"lacks dev-clean \(has other, test-clean, train-clean-100\)"):
        Task("full").prepare(root)
    (home / "other").rename(home / "dev-clean")
    clip = home / "test-clean" / "7" / "2" / "7-2-0001.flac"
    clip.rename(tmp_path / "away")
    with pytest.raises(SslbenchError, match="1 of 3 files cannot be used"):
        Task("full").prepare(root)
    with pytest.raises(SslbenchError, match="no manifests and no LibriSpeech splits"):
        Task("full").prepare(tmp_path / "nowhere")
    (tmp_path / "away").rename(clip)
    (text,) = (home / "train-clean-100").rglob("*.trans.txt")
    text.write_text("7-0-0000\n7-0-0001\n7-0-0002\n")
    with pytest.raises(SslbenchError, match=r"no clip of train .* has a transcript"):
        Task("full").prepare(root)


def test_empty_references_cost_their_insertions() -> None:
    rows = [Prediction("a", "THE CAT", "THE CAT", "s"), Prediction("b", "UH", "", "t")]
    metrics = Task("full").metrics(rows)
    assert metrics["wer"].value == pytest.approx(50)
    assert metrics["cer"].value == pytest.approx(100 * 2 / 7)


def test_spelling_goes_round_and_unknown_letters_are_marked() -> None:
    task = Task("full")
    target = task.encode("IT'S É")
    assert target[-1] == 2
    assert task.spell(target) == "IT'S <unk>"
    assert len(task.labels) == 32  # s3prl's char.dict and four special symbols


def test_groups_are_fixed_and_a_single_rest_is_left_out() -> None:
    task = Task("full")
    task.protocol = replace(task.protocol, batch_clips=2)

    class Lasting:
        def __init__(self, seconds: float) -> None:
            self.cut = self
            self.duration = seconds

    examples = [Lasting(seconds) for seconds in (3, 9, 5, 1, 7)]
    batches = list(islice(task.batches(examples, 0), 4))  # type: ignore[arg-type]
    assert sorted(batches) == [[1, 4], [1, 4], [2, 0], [2, 0]]


def test_official_values_are_s3prls() -> None:
    task = Task("full")
    protocol = task.protocol
    assert (protocol.steps, protocol.grad_clip, protocol.eval_every, task.dim) == (200_000, 1, 2000, 1024)
    assert 1e-4 in protocol.lr_grid


@pytest.mark.parametrize("samples", [160, 640, 1280])
def test_clips_of_milliseconds(tmp_path: Path, samples: int) -> None:
    """10 to 80 ms: no letter fits, the run ends, and every test clip is scored."""
    root = librispeech(tmp_path / "libri", samples)
    task = Task("smoke")
    task.dim = 8
    task.protocol = replace(task.protocol, steps=2, eval_every=1, lr_grid=[1e-2], batch_clips=2)
    settings = ProbeSettings(root, tmp_path / "exp", tmp_path / "results")
    row = run_task(task, Spectral, Named("fake", "fake"), settings)
    assert row.metrics["wer"].n == 3
