"""Write a report: the page, RESULTS.md, results.json, results.csv, results.tex and a card per system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sslbench.errors import SslbenchError
from sslbench.io import write_json, write_text
from sslbench.report import card, export, html, latex, markdown
from sslbench.report.content import Content, gather


def build(
    results: Path, out: Path, runs: Sequence[Path | str] = (), results_md: Path | None = None
) -> tuple[Content, list[Path]]:
    """Build a report.

    Args:
        results: folder of SYSTEM/EVALUATION.json.
        out: where the files go.
        runs: experiment folders whose `log.jsonl` become training curves.
        results_md: a second place for RESULTS.md, for example the recipe's own.

    Returns:
        What the report says, and the paths written.

    Raises:
        SslbenchError: no rows, a refused row, a missing library, or files that would lie among the rows.
    """
    content = gather(results, runs)
    if out.resolve().parent == results.resolve():
        raise SslbenchError(f"report: {out} would lie among the rows of {results}; choose another --out")
    page, text = html.page(content), markdown.results_md(content)
    write_text(out / "index.html", page)
    write_text(out / "RESULTS.md", text)
    write_json(out / "results.json", export.as_json(content.rows))
    write_text(out / "results.csv", export.as_csv(content.rows))
    write_text(out / "results.tex", latex.table(content.summary))
    for system in content.summary.systems:
        write_text(out / "cards" / system.name / "README.md", card.model_card(system))
        write_json(out / "cards" / system.name / "superb_form.json", card.superb_form(system))
    names = ("index.html", "RESULTS.md", "results.json", "results.csv", "results.tex", "cards")
    paths = [out / name for name in names]
    if results_md is not None:
        write_text(results_md, text)
        paths.append(results_md)
    return content, paths
