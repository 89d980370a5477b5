"""Intent classification's clips: Fluent Speech Commands in its official layout."""

from __future__ import annotations

import csv
from pathlib import Path

from lhotse.cut import Cut

from sslbench.errors import SslbenchError
from sslbench.probe.files import AudioFile, Missing, counted, file_cuts

SLOTS = ("action", "object", "location")
COLUMNS = ("path", "speakerId", *SLOTS)
CSV_FILES = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}
OFFICIAL_FILES = 23_132 + 3_118 + 3_793


def official_parts(root: Path) -> dict[str, list[Cut]]:
    """The clips of Fluent Speech Commands: `data/{train,valid,test}_data.csv` and the wavs they name.

    Raises:
        SslbenchError: naming every missing file, or a table without the needed columns, or its torn line.
    """
    missing = Missing(
        "ic: Fluent Speech Commands", root, "unpack fluent_speech_commands_dataset there, unchanged"
    )
    for name in CSV_FILES.values():
        missing.need(root / "data" / name)
    missing.need(root / "wavs")
    missing.check()
    parts: dict[str, list[AudioFile]] = {}
    for part, name in CSV_FILES.items():
        parts[part] = [
            AudioFile(
                missing.need(root / row["path"]), Path(row["path"]).stem, row["speakerId"],
                {slot: row[slot] for slot in SLOTS},
            )
            for row in _rows(root / "data" / name, missing.hint)
        ]  # fmt: skip
    missing.check()
    corpus = counted("fluent_speech_commands", sum(map(len, parts.values())), OFFICIAL_FILES)
    return {part: list(file_cuts(files, corpus)) for part, files in parts.items()}


def _rows(path: Path, hint: str) -> list[dict[str, str]]:
    rows = []
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        named = set(reader.fieldnames or ())
        for row in reader:
            lacking = [column for column in COLUMNS if column in named and not row[column]]
            if lacking or None in row:
                what = f"lacks {', '.join(lacking)}" if lacking else "has more fields than the header"
                raise SslbenchError(f"{path}:{reader.line_num}: {what}; {hint}")
            rows.append(row)
    if not rows or not named.issuperset(COLUMNS):
        raise SslbenchError(f"{path}: needs rows with {', '.join(COLUMNS)}; {hint}")
    return rows
