"""Figures that others published, with their sources: shown beside measured rows, never among them."""

from __future__ import annotations

from importlib import resources

import yaml
from pydantic import Field, model_validator

from sslbench.report.numbers import ABSENT
from sslbench.report.schema import Strict


class PublishedColumn(Strict):
    """One published figure."""

    title: str
    unit: str
    higher_is_better: bool


class PublishedTable(Strict):
    """Systems that were published under one protocol; a figure that was not found is absent."""

    title: str
    protocol: str
    source: str = Field(min_length=1)
    note: str = ""
    columns: dict[str, PublishedColumn] = Field(min_length=1)
    systems: dict[str, dict[str, float]] = Field(min_length=1)

    @property
    def header(self) -> list[str]:
        """Column titles with units and direction."""
        shown = [(column, f" ({column.unit})" if column.unit else "") for column in self.columns.values()]
        return ["system", *(f"{c.title}{unit} {'↑' if c.higher_is_better else '↓'}" for c, unit in shown)]

    @property
    def lines(self) -> list[list[str]]:
        """One line per system, figures as published, a dash where none was found."""
        cells = [(name, [figures.get(key) for key in self.columns]) for name, figures in self.systems.items()]
        return [[name, *(ABSENT if x is None else f"{x:g}" for x in values)] for name, values in cells]

    @model_validator(mode="after")
    def _figures_have_columns(self) -> PublishedTable:
        for system, figures in self.systems.items():
            if unknown := set(figures) - set(self.columns):
                raise ValueError(f"{system}: no column named {', '.join(sorted(unknown))}")
        return self


def tables() -> dict[str, PublishedTable]:
    """Every table, by the name of its file."""
    found = sorted(resources.files(__name__).iterdir(), key=lambda path: path.name)
    return {
        path.name.removesuffix(".yaml"): PublishedTable.model_validate(
            yaml.safe_load(path.read_text("utf-8"))
        )
        for path in found
        if path.name.endswith(".yaml")
    }
