"""The page in a real browser: nothing sticks out on a phone, a tablet, a laptop or paper."""

from __future__ import annotations

import os
import re
from pathlib import Path

import browser
import fake_benchmark as fake
import pytest

from sslbench.report.build import build

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("aiohttp")

A4_PX = 688  # 210 mm less two margins of 14 mm, at 96 px per inch
VIEWS = [
    browser.View("phone", 400),
    browser.View("tablet", 1000),
    browser.View("laptop", 1200),
    browser.View("dark", 1200, scheme="dark"),
    browser.View("print", A4_PX, media="print"),
]


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="needs chromium")
def test_a_page_of_200_rows_fits_every_width(tmp_path: Path) -> None:
    """Pictures are left in $REPORT_PICTURES, where it names a folder."""
    fake.write_benchmark(tmp_path)  # predictions, layer weights and training curves
    fake.write_large(tmp_path / "results")
    build(tmp_path / "results", tmp_path / "out", [tmp_path / "exp"])
    page = tmp_path / "out" / "index.html"
    opened = tmp_path / "opened.html"  # what is folded away must fit too
    opened.write_text(page.read_text().replace("<details>", "<details open>"))
    seen = browser.look(opened, VIEWS, tmp_path / "browser")
    if folder := os.environ.get("REPORT_PICTURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, view in seen.items():
            (Path(folder) / f"{name}.png").write_bytes(view.picture)
    for name, view in seen.items():
        assert view.page_width <= view.width, (name, view.page_width, view.sticks_out)
        assert view.sticks_out == [], name
    assert seen["dark"].picture != seen["laptop"].picture
    wide = tmp_path / "wide.html"  # the control: a box that is too wide must be seen
    wide.write_text(
        re.sub(r"<main>", '<main><div class="x" style="width: 900px">wide</div>', opened.read_text())
    )
    caught = browser.look(wide, VIEWS[:1], tmp_path / "browser2")["phone"]
    assert caught.page_width > 400
    assert any("DIV.x" in what for what in caught.sticks_out)
