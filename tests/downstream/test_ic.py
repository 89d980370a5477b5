"""Intent classification's data and score."""

from __future__ import annotations

from pathlib import Path

import pytest
from official_layouts import fluent_commands

from sslbench.downstream.ic.task import Task
from sslbench.errors import SslbenchError
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


def test_corpus_with_labels(mini_corpus: Path) -> None:
    parts = Task("smoke").prepare(mini_corpus)
    assert all(parts.values())
