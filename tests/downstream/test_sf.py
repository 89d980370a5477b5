"""Slot filling: labels, metrics by hand, data in both layouts, the protocol's values."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
from probe_fakes import Spectral

from sslbench.downstream.sf.data import read_snips
from sslbench.downstream.sf.metric import slot_type_f1, slot_value_errors
from sslbench.downstream.sf.task import Task
from sslbench.downstream.sf.text import END, SlotVocab
from sslbench.errors import SslbenchError
from sslbench.probe.runner import Named, ProbeSettings, run_task

VOICES = {"train": ["Ivy"], "dev": ["Amy"], "test": ["Brian"]}


def snips(root: Path) -> Path:
    lines = []
    for folder, voice in (("train", "Ivy"), ("valid", "Amy"), ("test", "Brian"), ("test", "Ivy")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            name = f"{voice}-snips-{folder}-{number}"
            noise = np.random.default_rng(number).normal(0, 0.1, 8_000)
            soundfile.write(root / folder / f"{name}.wav", noise, 16_000)
            lines.append(f"{name} BOS PLAY SOME COOL JAZZ EOS\tO O O genre genre PlayMusic")
    (root / "all.iob.snips.txt").write_text("\n".join(lines) + "\n")
    (root / "slots.txt").write_text("O\ngenre\nartist")
    return root


def test_audio_snips_is_read_by_voice(tmp_path: Path) -> None:
    task = Task("full")
    parts = task.prepare(snips(tmp_path))
    assert [e.id for e in parts["test"]] == ["Brian-snips-test-0", "Brian-snips-test-1"]  # not Ivy's
    assert parts["train"][0].reference == "PLAY SOME B-genre COOL JAZZ E-genre"
    assert task.labels[-4:] == ["B-genre", "E-genre", "B-artist", "E-artist"]
    assert parts["train"][0].target[-1] == END
    assert parts["test"][0].cut.custom["corpus"] == "audio_snips (6 of 110272 files)"


def test_a_few_files_without_a_line_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As s3prl does, up to one in a hundred."""
    root = snips(tmp_path)
    lines = [(root / "all.iob.snips.txt").read_text()]
    for number in range(2, 101):
        name = f"Ivy-snips-train-{number}"
        shutil.copy(root / "train/Ivy-snips-train-0.wav", root / "train" / f"{name}.wav")
        lines.append(f"{name} BOS PLAY EOS\tO O PlayMusic\n" if number != 7 else "")
    (root / "all.iob.snips.txt").write_text("".join(lines))
    parts, _ = read_snips(root, VOICES)
    assert len(parts["train"]) == 100
    assert "1 of 101 files without a line" in capsys.readouterr().err


def test_what_audio_snips_lacks_is_named(tmp_path: Path) -> None:
    root = snips(tmp_path)
    path = root / "all.iob.snips.txt"
    before = path.read_text()
    path.write_text(before.replace("O genre genre PlayMusic", "O genre PlayMusic", 1))
    with pytest.raises(SslbenchError, match="has 4 words but 3 slot tags"):
        read_snips(root, VOICES)
    path.write_text("".join(line for line in before.splitlines(True) if "Brian-snips-test-1" not in line))
    with pytest.raises(SslbenchError, match="1 of 2 files without a line"):
        read_snips(root, VOICES)
    path.write_text(before)
    for slots, complaint in (
        ("genre\nartist", r"slots.txt:1: is 'genre' where 'O', the tag of no slot, belongs"),
        ("O\nartist", r"snips.txt:1: Ivy-snips-train-0 has the slot genre, which slots.txt lacks"),
    ):
        (root / "slots.txt").write_text(slots)
        with pytest.raises(SslbenchError, match=complaint):
            read_snips(root, VOICES)
    (root / "slots.txt").write_text("O\ngenre\nartist")
    with pytest.raises(SslbenchError, match="no file of the voices Emma"):
        read_snips(root, {**VOICES, "test": ["Emma"]})
    (root / "slots.txt").unlink()
    (root / "valid").rename(root / "gone")
    with pytest.raises(SslbenchError, match=r"lacks slots.txt, valid/; s3prl's preprocess"):
        Task("full").prepare(root)
    with pytest.raises(SslbenchError, match="no manifests"):
        Task("full").prepare(tmp_path / "gone")


def test_manifests_with_iob_tags(mini_corpus: Path) -> None:
    task = Task("smoke")
    parts = task.prepare(mini_corpus)
    assert all(parts.values())
    example = parts["test"][0]
    words = example.reference.split()
    marks = [word[2:] for word in words if word[:2] in ("B-", "E-")]
    assert marks[::2] == marks[1::2]  # every begin has its end
    assert task.vocab.decode(example.target) == example.reference
    said = " ".join(word for word in words if word[:2] not in ("B-", "E-"))
    assert said == example.cut.supervisions[0].text
    task.settings["kinds"] = ["sentence"]
    with pytest.raises(SslbenchError, match="carries slot tags"):
        task.prepare(mini_corpus)


def test_labels_go_round() -> None:
    vocab = SlotVocab(["city", "day"])
    target = vocab.encode(["GO", "TO", "NEW", "YORK", "MONDAY"], ["O", "O", "city", "city", "day"])
    assert vocab.decode(target) == "GO TO B-city NEW YORK E-city B-day MONDAY E-day"
    assert vocab.encode([], []) == ()
    assert vocab.decode(()) == ""


def test_metrics_by_hand() -> None:
    ref = "GO TO B-city NEW YORK E-city B-day MONDAY E-day"
    assert slot_type_f1(ref, ref) == 1
    assert slot_type_f1("GO TO B-city YORK E-city", ref) == pytest.approx(2 / 3)
    assert slot_type_f1("", ref) == 0
    assert slot_type_f1("GO", "STOP") == 1  # no slot on either side
    errors = slot_value_errors("B-city NEW CORK E-city B-hour X E-hour", ref)
    assert (errors.errors, errors.characters) == (1 + 6, 14)


def test_windows_of_the_protocol() -> None:
    """Batches are neighbours by target length, one per clip and epoch."""
    task = Task("smoke")
    task.protocol = replace(task.protocol, batch_clips=3)

    class Sized:
        def __init__(self, length: int) -> None:
            self.target = (0,) * length

    examples = [Sized(length) for length in (5, 1, 9, 7, 3)]
    batches = list(islice(task.batches(examples, 0), 5))  # type: ignore[arg-type]
    assert sorted(batches) == [[0, 4, 1], [0, 4, 1], [0, 4, 1], [2, 3, 0], [3, 0, 4]]


def test_official_values_are_s3prls() -> None:
    task = Task("full")
    protocol = task.protocol
    assert (protocol.steps, protocol.batch_clips, protocol.grad_clip, protocol.eval_every) == (
        200_000, 32, 1, 2000,
    )  # fmt: skip
    assert task.dim == 1024
    assert task.settings["speakers"]["test"] == ["Brian", "Emma", "Raveena", "Russell"]


def test_a_run_of_a_few_steps_with_clips_of_milliseconds(tmp_path: Path) -> None:
    root = snips(tmp_path / "snips")
    for number, samples in enumerate((160, 1280)):
        soundfile.write(root / "train" / f"Ivy-snips-train-{number}.wav", np.full(samples, 0.1), 16_000)
    soundfile.write(root / "test" / "Brian-snips-test-0.wav", np.full(480, 0.1), 16_000)
    task = Task("smoke")
    task.settings["speakers"], task.dim = VOICES, 8
    task.protocol = replace(task.protocol, steps=3, eval_every=2, lr_grid=[1e-2], batch_clips=2)
    settings = ProbeSettings(root, tmp_path / "exp", tmp_path / "results")
    row = run_task(task, Spectral, Named("fake", "fake"), settings)
    assert row.metrics["slot_type_f1"].n == 2
    assert row.metrics["slot_value_cer"].value >= 0
    assert row.data.corpus == "audio_snips (6 of 110272 files)"
