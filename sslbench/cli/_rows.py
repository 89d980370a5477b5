"""Options of the verbs that write result rows."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sslbench.tiers import TIERS

if TYPE_CHECKING:
    from sslbench.finetune.rows import RowOptions


def add_tier(parser: argparse.ArgumentParser) -> None:
    """The tier: a row claims nothing unless it is told to."""
    parser.add_argument(
        "--tier", choices=TIERS, default="smoke", help="how much the row claims (default: smoke, nothing)"
    )


def check_labels(systems: list[str], evaluation: str = "asr") -> None:
    """Raise `SslbenchError` for a label that a row would refuse: before hours of work, not after."""
    import re

    from sslbench.errors import SslbenchError
    from sslbench.report.schema import EVALUATION, SYSTEM

    for system in systems:
        if not re.fullmatch(SYSTEM, system):
            raise SslbenchError(
                f"--system {system!r}: letters, digits and . _ - only, a letter or digit first"
            )
    if not re.fullmatch(EVALUATION, evaluation):
        raise SslbenchError(f"--evaluation {evaluation!r}: small letters, digits and _ only")


def add_row_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that make an evaluation write its result row."""
    parser.add_argument("--system", metavar="LABEL", help="what reports call this system; needs --results")
    parser.add_argument("--results", metavar="DIR", help="write DIR/LABEL/EVALUATION.json")
    add_tier(parser)
    parser.add_argument(
        "--evaluation", default="asr", help="name of the row, for example asr_other (default: asr)"
    )


def row_options(
    system: str | None,
    results: str | None,
    tier: str,
    evaluation: str,
    upstream: str | None = None,
) -> RowOptions | None:
    """The row's options; None when no row is wanted. Raises `SslbenchError` when only half is given."""
    from sslbench.errors import SslbenchError
    from sslbench.finetune.rows import RowOptions

    if bool(system) != bool(results):
        raise SslbenchError("a row needs both --system LABEL and --results DIR")
    if system:
        check_labels([system], evaluation)
    return RowOptions(system, results, tier, upstream, evaluation) if system and results else None
