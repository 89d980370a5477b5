"""Result rows on disk: one JSON file per (system, evaluation), written atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.io import read_json, write_text
from sslbench.report.schema import ResultRow
from sslbench.tiers import TIERS


def row_path(root: Path | str, system: str, evaluation: str) -> Path:
    """Where a row lives: ROOT/SYSTEM/EVALUATION.json."""
    return Path(root) / system / f"{evaluation}.json"


def check_replaceable(root: Path | str, system: str, evaluation: str, tier: str) -> None:
    """Raise `SslbenchError` where a row of a higher tier lies: a trial run must not cost one that counts."""
    path = row_path(root, system, evaluation)
    try:
        held = load(path).tier if path.is_file() else tier
    except CorruptFileError:
        return
    if TIERS.index(held) > TIERS.index(tier):
        raise SslbenchError(
            f"{path}: is a row of tier {held}, which one of tier {tier} does not replace; "
            "use another --results or --system, or remove it"
        )


def save(row: ResultRow, root: Path | str) -> Path:
    """Write a row, replacing an earlier one of the same system and evaluation.

    Raises:
        SslbenchError: that one is of a higher tier.
    """
    check_replaceable(root, row.system, row.evaluation, row.tier)
    path = row_path(root, row.system, row.evaluation)
    write_text(path, row.model_dump_json(indent=2) + "\n")
    return path


def make_row(**fields: Any) -> ResultRow:
    """Build a row. Raises `SslbenchError` naming every field that is missing, unknown or not finite."""
    try:
        return ResultRow(**fields)
    except ValidationError as error:
        raise SslbenchError(f"refused result row: {_problems(error)}") from None


def load(path: Path | str) -> ResultRow:
    """Read one row. Raises `CorruptFileError` naming the file and the fields at fault."""
    try:
        return ResultRow.model_validate(read_json(path))
    except ValidationError as error:
        raise CorruptFileError(f"{path}: refused result row: {_problems(error)}") from None


def load_all(root: Path | str) -> list[ResultRow]:
    """Every row below a folder, by system and evaluation.

    Raises:
        SslbenchError: there is none.
        CorruptFileError: a row is refused, or lies where another system's or evaluation's row belongs.
    """
    rows = []
    for path in sorted(Path(root).glob("*/*.json")):
        row = load(path)
        if path != (place := row_path(root, row.system, row.evaluation)):
            raise CorruptFileError(
                f"{path}: holds the row of system {row.system!r}, evaluation {row.evaluation!r}; "
                f"move it to {place}, or change these names in it"
            )
        rows.append(row)
    if not rows:
        raise SslbenchError(f"{root}: holds no result rows (SYSTEM/EVALUATION.json); run an evaluation first")
    return rows


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'row'}: {item['msg']}" for item in error.errors())
