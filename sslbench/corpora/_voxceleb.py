"""VoxCeleb1's official layout: `{dev,test}/wav/idXXXXX/VIDEO/NNNNN.wav` and its lists."""

from __future__ import annotations

from pathlib import Path

from sslbench.errors import SslbenchError

LAYOUT = "unpack vox1_dev_wav.zip into dev/ and vox1_test_wav.zip into test/"


def find_clip(root: Path, name: str) -> Path | None:
    """The file of a clip `idXXXXX/VIDEO/NNNNN.wav`; None when neither half has it."""
    for half in ("dev", "test"):
        path = root / half / "wav" / name
        if path.is_file():
            return path
    return None


def clip_id(name: str) -> str:
    """`idXXXXX-VIDEO-NNNNN`, as s3prl's prediction files name clips."""
    return name.removesuffix(".wav").replace("/", "-")


def read_pairs(path: Path, columns: int) -> list[list[str]]:
    """The lines of a list as words.

    Raises:
        SslbenchError: a line with another number of words, naming it, or no line at all.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if words and len(words) != columns:
            raise SslbenchError(f"{path}:{number}: expected {columns} words, got {line!r}; download it again")
        if words:
            rows.append(words)
    if not rows:
        raise SslbenchError(f"{path}: is empty; download it again")
    return rows


def first_file(root: Path, names: list[str]) -> Path:
    """The first of some files that is there, else the first name (for the error)."""
    return next((root / name for name in names if (root / name).is_file()), root / names[0])
