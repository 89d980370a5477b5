"""What is printed for people: brackets stay text, and nothing is cut."""

from __future__ import annotations

import pytest

from sslbench.cli import doctor, main
from sslbench.report.terminal import print_table


def test_advice_names_the_extra_that_brings_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(doctor.PACKAGES, "no-such-package", ("1.0", "[s3prl]"))
    main(["doctor"])
    assert "pip install 'sslbench[s3prl]' -c constraints.txt" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["20", "400"])
def test_a_table_is_as_wide_as_its_content(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    cells = ["[red]name[/]", *(f"{number}.345 [12.0, 13.5]" for number in range(40))]
    print_table("a [title]", ["system", *map(str, range(40))], [cells, ["b [1]", *cells[1:]]])
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "a [title]"
    line = next(line for line in lines if "[red]name[/]" in line)
    assert [cell for cell in cells if cell not in line] == []
    assert len(line) > 400


def test_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "corpora"]) == 0
    assert "mini_librispeech" in capsys.readouterr().out
