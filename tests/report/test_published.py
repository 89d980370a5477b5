"""Published figures keep their sources and stay out of the measured rows."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sslbench.report.published import PublishedTable, tables

TABLE = {
    "title": "A",
    "protocol": "p",
    "source": "s",
    "columns": {"wer": {"title": "WER", "unit": "%", "higher_is_better": False}},
    "systems": {"X": {"wer": 5.0}, "Y": {}},
}


def test_every_table_names_its_source_and_has_no_empty_column() -> None:
    found = tables()
    assert {"superb", "superb_efficient", "librispeech_100h", "librispeech_10h", "pretraining"} <= set(found)
    for name, table in found.items():
        for column in table.columns:
            assert any(column in figures for figures in table.systems.values()), (name, column)
        assert all(table.systems.values()), name
        assert len(table.header) == len(table.lines[0]), name


def test_a_missing_figure_is_a_dash() -> None:
    table = PublishedTable.model_validate(TABLE)
    assert table.header == ["system", "WER (%) ↓"]
    assert table.lines == [["X", "5"], ["Y", "–"]]


@pytest.mark.parametrize(
    "change",
    [
        {"source": ""},
        {"systems": {"X": {"per": 1.0}}},
        {"systems": {"X": {"wer": float("nan")}}},
        {"extra": 1},
    ],
)
def test_a_table_without_source_or_with_an_unknown_figure_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PublishedTable.model_validate({**TABLE, **change})
