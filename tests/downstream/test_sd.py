"""Diarization: error rates against pyannote.metrics, answers as text, data in both layouts."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from probe_fakes import Spectral

from sslbench.downstream.sd.answer import Answer, turns_from, turns_text
from sslbench.downstream.sd.data import FILES, read_kaldi
from sslbench.downstream.sd.der import Turn, errors, turns_of
from sslbench.downstream.sd.task import Task
from sslbench.errors import SslbenchError
from sslbench.nn.foreign import ForeignUpstream
from sslbench.probe.rundir import RunDir
from sslbench.probe.runner import Named, ProbeSettings, run_task
from sslbench.probe.task import Example, Prediction


def drawn(seed: int, speakers: str, turns: int) -> list[Turn]:
    draw = random.Random(seed)
    found = []
    for _ in range(turns):
        start = round(draw.uniform(0, 20), 2)
        found.append(Turn(start, round(start + draw.uniform(0.05, 4), 2), draw.choice(speakers)))
    return found


@pytest.mark.parametrize("collar_s", [0.0, 0.25])
@pytest.mark.parametrize("seed", range(8))
def test_errors_equal_pyannotes(seed: int, collar_s: float) -> None:
    """Random turns with overlap, also of one speaker with itself, and unequal numbers of speakers."""
    metrics = pytest.importorskip("pyannote.metrics.diarization", reason="pip install 'sslbench[superb]'")
    from pyannote.core import Annotation, Segment

    ref, hyp = drawn(seed, "ab", 7), drawn(100 + seed, "xyz"[: 1 + seed % 3], 6)

    def annotation(turns: list[Turn]) -> Annotation:
        made = Annotation(uri="r")
        for number, turn in enumerate(turns):
            made[Segment(turn.start, turn.end), number] = turn.speaker
        return made.support()

    # pyannote's collar is the whole width
    metric = metrics.DiarizationErrorRate(collar=2 * collar_s)
    theirs = metric(annotation(ref), annotation(hyp), detailed=True)
    ours = errors(ref, hyp, collar_s)
    assert ours.total == pytest.approx(theirs["total"], abs=1e-6)
    assert ours.missed == pytest.approx(theirs["missed detection"], abs=1e-6)
    assert ours.false == pytest.approx(theirs["false alarm"], abs=1e-6)
    assert ours.confused == pytest.approx(theirs["confusion"], abs=1e-6)
    other = errors(ref, hyp, collar_s + 0.1)  # control
    assert abs(other.total - ours.total) > 1e-3


def test_errors_by_hand() -> None:
    ref = [Turn(0, 10, "a"), Turn(8, 12, "b")]
    assert errors(ref, [Turn(0, 10, "1"), Turn(8, 12, "0")]).wrong == pytest.approx(0)
    swapped = errors(ref, [Turn(0, 8, "1"), Turn(8, 12, "1")])  # b is missed, then taken for a
    assert (swapped.missed, swapped.false, swapped.confused) == pytest.approx((2, 0, 2))
    assert errors(ref, []).missed == pytest.approx(14)
    assert errors([], [Turn(0, 1, "x")]).false == pytest.approx(1)
    assert errors([], []).total == 0


def test_turns_of_frames_with_a_median() -> None:
    active = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [1, 0]], dtype=bool)
    assert turns_of(active, 0.5) == [Turn(0, 1, "0"), Turn(1.5, 2.5, "0"), Turn(1, 1.5, "1")]
    assert turns_of(active, 0.5, median=3) == [Turn(0, 2.5, "0")]
    assert turns_of(np.zeros((3, 2), dtype=bool), 0.5) == []


def test_answers_are_text_and_come_back() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (7, 2)).astype(np.float32)
    again = Answer.of(Answer(logits, 320).text())
    assert again.stride == 320
    np.testing.assert_allclose(again.logits, logits, rtol=1e-3)
    assert Answer.of(again.text()).text() == again.text()
    huge = Answer.of(Answer(np.array([[1e6, -1e6]], dtype=np.float32), 320).text())  # of a head that diverged
    assert np.isfinite(huge.logits).all()
    with pytest.raises(SslbenchError, match="no diarization answer"):
        Answer.of("320 2 %%%")
    turns = [Turn(1.25, 2, "b c"), Turn(0, 1, "a")]
    assert turns_from(turns_text(turns)) == [turns[1], turns[0]]


def test_scores_choose_on_dev_and_report_the_choice_on_test() -> None:
    """A system that is unsure needs a low threshold; dev says so, and the test's own best is beside it."""

    def row(shift: float) -> Prediction:
        said = np.zeros((100, 2))
        said[10:60, 0] = said[40:90, 1] = 1
        answer = Answer((said * 2 - 1 + shift).astype(np.float32), 320)
        return Prediction("r", answer.text(), "a 0.2 1.2;b 0.8 1.8", "r")

    task = Task("smoke")
    assert task.metrics([row(0.0)])["der"].value == pytest.approx(0, abs=1e-6)
    unsure = task.metrics([row(-1.5)])  # no frame above 0.5
    assert unsure["der"].value == pytest.approx(100)
    tuned = task.final_metrics([row(-1.5)], [row(-1.5)])
    assert tuned["der"].value == pytest.approx(0, abs=1e-6)
    fooled = task.final_metrics([row(0.0)], [row(-1.5)])
    assert fooled["der_test_selected"].value <= fooled["der"].value
    assert next(iter(tuned)) == "der"
    assert task.selection([row(0.0)]) == pytest.approx(0)


def kaldi(root: Path, seconds: float = 2.0) -> Path:
    for part in ("train", "dev", "test"):
        folder = root / part
        (folder / "wav").mkdir(parents=True)
        names = ("r1", "r2") if part == "test" else (f"{part}1", f"{part}2")
        for rec in names:
            noise = np.random.default_rng(1).normal(0, 0.05, int(16_000 * seconds))
            soundfile.write(folder / "wav" / f"{rec}.wav", noise, 16_000)
        rows = {
            "wav.scp": "{r} {f}/wav/{r}.wav", "reco2dur": "{r} 2.0", "utt2spk": "{r}A {r}a\n{r}B {r}b",
            "segments": "{r}A {r} 0.1 1.2\n{r}B {r} 1.0 1.9",
            "rttm": "SPEAKER {r} 1 0.1 1.1 <NA> <NA> {r}a <NA>\nSPEAKER {r} 1 1.0 0.9 <NA> <NA> {r}b <NA>",
        }  # fmt: skip
        for name, text in rows.items():
            lines = [text.format(r=rec, f=folder) for rec in names]
            (folder / name).write_text("\n".join(lines) + "\n")
    return root


def test_kaldi_folders_are_read_and_checked(tmp_path: Path) -> None:
    root = kaldi(tmp_path / "d")
    examples = Task("full").prepare(root)
    assert [len(some) for some in examples.values()] == [2, 2, 2]
    example = examples["test"][0]
    assert example.reference == "r1a 0.1 1.2;r1b 1 1.9"
    assert example.cut.custom["corpus"].startswith("libri2mix (")
    labels = Task("full")._labels(example.target)
    assert labels.shape == (100, 2)
    assert labels.sum(0).tolist() == [55, 45]

    for broken, complaint in (
        ("utt2spk", "lacks r2B, which segments name"),
        ("segments", "2.segments: has no turn of r2"),
        ("wav.scp", "is a command"),
    ):
        path = root / "test" / broken
        before = path.read_text()
        changed = before.replace("/wav/r2.wav", "/wav/r2.wav |")
        if broken != "wav.scp":
            changed = "".join(line for line in before.splitlines(True) if "r2B" not in line)
        if broken == "segments":
            changed = "".join(line for line in before.splitlines(True) if "r2" not in line)
        path.write_text(changed)
        with pytest.raises(SslbenchError, match=complaint.removeprefix("2.")):
            read_kaldi(root)
        path.write_text(before)
    for name in FILES[1:3]:
        (root / "dev" / name).unlink()
    with pytest.raises(SslbenchError, match=r"lacks dev/segments, dev/utt2spk; s3prl/LibriMix"):
        read_kaldi(root)


def test_manifests_with_turns(mini_corpus: Path) -> None:
    parts = Task("smoke").prepare(mini_corpus)
    assert all(parts.values())
    with pytest.raises(SslbenchError, match="split"):
        Task("smoke").prepare(mini_corpus.parent / "audio" / "LibriSpeech")


class Short(Spectral):
    """One frame fewer than round(T / stride), as HuBERT's convolutions give."""

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        return {"hidden_states": [state[:, :-1] for state in super().forward(wavs)["hidden_states"]]}


@pytest.mark.parametrize(("upstream", "seconds", "frames"), [(Short, 2.0, 100), (Spectral, 1.99, 99)])
def test_answers_have_the_labels_frames(
    upstream: type[Spectral], seconds: float, frames: int, tmp_path: Path
) -> None:
    """Where the upstream gives one frame less than the labels, or rounding one more (99.5)."""
    root = kaldi(tmp_path / "d", seconds)
    task = Task("smoke")
    task.dim = 4
    task.protocol = replace(task.protocol, steps=2, eval_every=1, lr_grid=[1e-2], batch_clips=2)
    settings = ProbeSettings(root, tmp_path / "exp", tmp_path / "results")
    run_task(task, lambda: ForeignUpstream(upstream(), "imported"), Named("fake", "fake"), settings)
    for part in ("dev", "test"):
        rows = RunDir(tmp_path / "exp" / "sd").predictions(1e-2, part)
        assert [Answer.of(row.hyp).logits.shape for row in rows] == [(frames, 2)] * 2


def test_answers_are_cut_or_continued() -> None:
    task = Task("smoke")
    logits = torch.arange(70.0).view(1, 35, 2)
    target = {"samples": 9_900, "turns": []}  # 30.9 frames
    cut: Any = SimpleNamespace(id="r")
    example = Example(cut, target, "", "r")
    for given, wanted in ((31, [*range(30)]), (29, [*range(30)]), (20, [*range(24), *[23] * 6])):
        (row,) = task.predictions("dev", [example], task.decode(logits, torch.tensor([given])))
        assert Answer.of(row.hyp).logits[:, 0].tolist() == [2.0 * frame for frame in wanted]
    (row,) = task.predictions("dev", [example], [""])  # the answers are to come from elsewhere
    assert row.hyp == ""


def test_recordings_of_milliseconds_are_scored(tmp_path: Path) -> None:
    """10 and 80 ms: at least one frame, the reference counts in full, the run ends."""
    root = kaldi(tmp_path / "d")
    for name, samples in (("train/wav/train1", 160), ("dev/wav/dev1", 480), ("test/wav/r1", 1280)):
        soundfile.write(root / f"{name}.wav", np.full(samples, 0.1), 16_000)
    task = Task("smoke")
    task.dim = 4
    task.protocol = replace(task.protocol, steps=2, eval_every=1, lr_grid=[1e-2], batch_clips=2)
    settings = ProbeSettings(root, tmp_path / "exp", tmp_path / "results")
    row = run_task(task, Spectral, Named("fake", "fake"), settings)
    assert row.metrics["der"].n == 2
    assert row.metrics["der"].value > 0
