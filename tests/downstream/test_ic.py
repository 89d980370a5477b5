"""Intent classification's data and score."""

from __future__ import annotations

from pathlib import Path

import pytest
from official_layouts import fluent_commands

from sslbench.downstream.ic.task import Task
from sslbench.errors import SslbenchError
from sslbench.probe.files import labelled_parts
from sslbench.probe.task import Prediction


def test_official_layout(tmp_path: Path) -> None:
    task = Task("full")
    parts = task.prepare(fluent_commands(tmp_path))
    assert {part: len(some) for part, some in parts.items()} == {"train": 18, "dev": 6, "test": 6}
    assert task.slots == [["off", "on"], ["lamp", "music"], ["hall", "none"]]
    example = parts["test"][-1]
    assert example.reference == "on, music, hall"
    assert [slot[i] for slot, i in zip(task.slots, example.target, strict=True)] == ["on", "music", "hall"]


def test_all_three_must_be_right() -> None:
    rows = [
        Prediction("a", "on, lamp, hall", "on, lamp, hall", "s"),
        Prediction("b", "on, lamp, none", "on, lamp, hall", "s"),
    ]
    assert Task("full").metrics(rows)["acc"].value == 50


def test_a_value_that_training_lacks_counts_as_wrong(tmp_path: Path) -> None:
    root = fluent_commands(tmp_path)
    table = root / "data" / "test_data.csv"
    table.write_text(table.read_text().replace("music", "juice"))
    task = Task("full")
    example = task.prepare(root)["test"][-1]
    assert example.reference == "on, juice, hall"
    assert "juice" not in task.slots[1]


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        SslbenchError, match=r"lacks data/train_data.csv, data/valid_data.csv, data/test_data.csv, wavs"
    ):
        Task("full").prepare(tmp_path)
    root = fluent_commands(tmp_path / "a")
    (root / "wavs/speakers/s0/train00.wav").unlink()
    with pytest.raises(SslbenchError, match=r"lacks wavs/speakers/s0/train00.wav; unpack"):
        Task("full").prepare(root)
    (root / "data" / "valid_data.csv").write_text("path,action\nx,y\n")
    with pytest.raises(SslbenchError, match=r"valid_data.csv: needs rows with path, speakerId"):
        Task("full").prepare(root)


def test_a_torn_table_is_refused_by_its_line(tmp_path: Path) -> None:
    path = fluent_commands(tmp_path) / "data" / "train_data.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines)[: -len(",none")])
    with pytest.raises(SslbenchError, match=r"train_data.csv:19: lacks location; unpack"):
        Task("full").prepare(tmp_path)
    path.write_text("\n".join([lines[0], lines[1] + lines[2], *lines[3:]]))
    with pytest.raises(SslbenchError, match=r"train_data.csv:2: has more fields than the header; unpack"):
        Task("full").prepare(tmp_path)


def test_corpus_with_labels(mini_corpus: Path) -> None:
    task = Task("smoke")
    assert all(task.prepare(mini_corpus).values())
    with pytest.raises(SslbenchError, match=r"ic: .*: no cut of train has the labels action, mood; give the"):
        labelled_parts(mini_corpus, task.settings, ["action", "mood"], "ic", "Fluent Speech Commands")
