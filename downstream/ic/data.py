"""Intent classification's clips: Fluent Speech Commands in its official layout, or a labelled corpus."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from sslbench.errors import SslbenchError
from sslbench.probe.files import AudioFile, Missing, counted, file_cuts, label, manifest_parts

SLOTS = ("action", "object", "location")
CSV_FILES = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}
OFFICIAL_FILES = 23_132 + 3_118 + 3_793


def official_parts(root: Path) -> dict[str, list[Cut]]:
    """The clips of Fluent Speech Commands: `data/{train,valid,test}_data.csv` and the wavs they name.

    Raises:
        SslbenchError: naming every missing file, or a table without the needed columns.
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
        with (root / "data" / name).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        if not rows or any(column not in rows[0] for column in ("path", "speakerId", *SLOTS)):
            raise SslbenchError(
                f"{root / 'data' / name}: needs rows with path, speakerId, {', '.join(SLOTS)}; {missing.hint}"
            )
        parts[part] = [
            AudioFile(
                missing.need(root / row["path"]), Path(row["path"]).stem, row["speakerId"],
                {slot: row[slot] for slot in SLOTS},
            )
            for row in rows
        ]  # fmt: skip
    missing.check()
    corpus = counted("fluent_speech_commands", sum(map(len, parts.values())), OFFICIAL_FILES)
    return {part: list(file_cuts(files, corpus)) for part, files in parts.items()}


def labelled_parts(root: Path, settings: dict[str, Any]) -> dict[str, list[Cut]]:
    """The clips of a corpus folder whose cuts are marked `action`, `object` and `location`.

    Raises:
        SslbenchError: a part has none.
    """
    parts = {
        part: [cut for cut in cuts if all(label(cut, slot) for slot in SLOTS)]
        for part, cuts in manifest_parts(root, settings).items()
    }
    for part, cuts in parts.items():
        if not cuts:
            raise SslbenchError(
                f"ic: {root}: no cut of {part} has the labels {', '.join(SLOTS)}; give the root of Fluent "
                "Speech Commands, or a corpus with such labels"
            )
    return parts
