"""The summary as a LaTeX table (booktabs), ready for a paper."""

from __future__ import annotations

from sslbench.report.view import TIED, UNTESTED, Summary

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↓": r"$\downarrow$",
    "↑": r"$\uparrow$", "≈": r"$\approx$", "–": "--", "×": r"$\times$",
}  # fmt: skip


def table(summary: Summary) -> str:
    """A tabular; the best of a column is bold, intervals are small."""
    header = ["System", *(f"{column.label} {column.arrow}" for column in summary.columns)]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{l" + "r" * len(summary.columns) + "}",
        r"\toprule",
        " & ".join(map(escape, header)) + r" \\",
        r"\midrule",
    ]
    for system in summary.systems:
        cells = [escape(system.name)]
        for column in summary.columns:
            cell = summary.cell(system, column)
            text = rf"\textbf{{{escape(cell.text)}}}" if cell.best else escape(cell.text)
            text += {TIED: r"$^{\approx}$", UNTESTED: r"$^{?}$"}.get(cell.mark, "")
            cells.append(text + (rf" {{\scriptsize {escape(cell.interval)}}}" if cell.interval else ""))
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> escape("hubert_base 5 %")
    'hubert\\_base 5 \\%'
    """
    return "".join(_SPECIAL.get(character, character) for character in text)
