"""Query by example's part of a submission: the scores of all queries as a NIST `stdlist`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

from sslbench.errors import SslbenchError
from sslbench.io import write_text
from sslbench.probe.task import Prediction

THRESHOLD = 2.0
"""Scores above are marked as found (s3prl/downstream/quesst14_dtw/expert.py); MTWV does not use it."""
_LIST = re.compile(r'<detected_termlist\b[^>]*?termid="([^"]*)"[^>]*>(.*?)</detected_termlist>', re.S)
_TERM = re.compile(r'<term\b[^>]*?file="([^"]*)"[^>]*?score="([^"]*)"')
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<stdlist termlist_filename="benchmark.stdlist.xml" '
    'indexing_time="1.00" language="english" index_size="1" system_id="benchmark">\n'
)


def write(rows: Sequence[Prediction], path: Path) -> None:
    """Write every searched query with its score in every document."""
    lines = [_HEAD]
    for row in rows:
        words = row.hyp.split()
        if not words:
            continue
        lines.append(
            f'  <detected_termlist termid={quoteattr(row.id)} term_search_time="1.0" oov_term_count="1">\n'
        )
        for name, score in zip(words[::2], words[1::2], strict=True):
            decision = "YES" if float(score) > THRESHOLD else "NO"
            lines.append(
                f'    <term file={quoteattr(name)} channel="1" tbeg="0.000" dur="0.00" score="{score}" '
                f'decision="{decision}"/>\n'
            )
        lines.append("  </detected_termlist>\n")
    write_text(path, "".join([*lines, "</stdlist>\n"]))


def read(rows: Sequence[Prediction], path: Path) -> list[str]:
    """The answers for these queries, empty for unsearched ones. Raises `SslbenchError` where one lacks."""
    found = {
        name: " ".join(f"{file} {score}" for file, score in _TERM.findall(body))
        for name, body in _LIST.findall(path.read_text(encoding="utf-8"))
    }
    missing = [row.id for row in rows if row.hyp and row.id not in found]
    if missing:
        raise SslbenchError(f"{path}: lacks {len(missing)} of {len(rows)} queries, first {missing[0]}")
    return [found.get(row.id, "") for row in rows]
