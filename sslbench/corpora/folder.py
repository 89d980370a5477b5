"""Any folder tree of audio, with transcripts beside it where there are any."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.corpora import PrepareOptions
from sslbench.corpora._checked import Checked, check_all, held_out, make_cut, report_skipped
from sslbench.errors import SslbenchError

if TYPE_CHECKING:
    from lhotse import MonoCut

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".sph")
DEV_PERCENT = 10
MIN_GROUPS = 3  # fewer folders than this say nothing about speakers


def prepare(root: Path, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Make `train` and `dev` manifests of every audio file under `root`.

    Files that are not 16 kHz mono wav or flac get a copy that is, under `out/audio`. The first folder
    below the files' common folder is taken as the speaker; `X.txt` beside `X.wav`, or a line
    `X words …` in a `*.trans.txt` beside it, is the transcript. About a tenth of the speakers (of the
    files, where there are no such folders) becomes `dev`, chosen by their names.

    Returns:
        The content of `corpus.json`.

    Raises:
        SslbenchError: no such folder, no audio in it, or none that can be decoded.
    """
    options.refuse_preset("folder")
    root, out = root.resolve(), out.resolve()
    paths = _find(root, out)
    ids = _ids(root, paths)
    groups = _groups(paths)
    speakers = set(groups.values())
    by_speaker = len(speakers) >= MIN_GROUPS
    unit = {path: groups[path] if by_speaker else ids[path] for path in paths}
    dev_units = held_out(unit.values(), DEV_PERCENT)
    split = {path: "dev" if unit[path] in dev_units else "train" for path in paths}
    kept = ([path for path in paths if split[path] == name] for name in ("train", "dev"))
    paths = sorted(path for part in kept for path in options.limited(part, ids.__getitem__))

    def copy_of(path: Path) -> Path:
        return (out / "audio" / path.relative_to(root)).with_name(ids[path].rsplit("/", 1)[-1] + ".flac")

    checked = check_all(paths, out, options.jobs, "folder: files decoded", copy_of)
    bad = [path for path in paths if checked[path].reason]
    skipped = [{"id": _flat(ids[path]), "path": str(path), "reason": checked[path].reason} for path in bad]
    report_skipped(out, "folder", len(paths), skipped)
    cuts: dict[str, list[MonoCut]] = {"train": [], "dev": []}
    lines = _Transcripts()
    for path in paths:
        if not checked[path].reason:
            speaker = groups[path] if groups[path] else None
            text = lines.of(path)
            cuts[split[path]].append(make_cut(_flat(ids[path]), checked[path], text=text, speaker=speaker))
    notes = _conversions([checked[path] for path in paths if not checked[path].reason], out)
    return _write(root, out, cuts, skipped, notes)


def _write(
    root: Path, out: Path, cuts: dict[str, list[MonoCut]], skipped: list[dict[str, Any]], notes: list[str]
) -> dict[str, Any]:
    from sslbench.data.manifests import write_corpus

    for note in notes:
        print(f"folder: {note}")
    return write_corpus(
        out, root.name or "folder", cuts, synthetic=False, skipped=skipped, facts={"notes": notes}
    )


def _find(root: Path, out: Path) -> list[Path]:
    if not root.is_dir():
        raise SslbenchError(f"{root}: no such folder; name a folder with audio files by --root")
    found: list[Path] = []
    for folder, folders, names in os.walk(root, followlinks=True):
        # our own copies of an earlier run are no new recordings
        folders[:] = [f for f in folders if not f.startswith(".") and Path(folder, f) != out / "audio"]
        found += [
            Path(folder, n) for n in names if Path(n).suffix.lower() in SUFFIXES and not n.startswith(".")
        ]
    if not found:
        raise SslbenchError(f"{root}: no audio in this folder tree (looked for {', '.join(SUFFIXES)})")
    return sorted(found)


def _ids(root: Path, paths: list[Path]) -> dict[Path, str]:
    """The path below root without suffix; with it, where two files differ in nothing else."""
    plain = {path: path.relative_to(root).with_suffix("").as_posix() for path in paths}
    uses = Counter(_flat(name) for name in plain.values())
    ids = {
        path: name if uses[_flat(name)] == 1 else path.relative_to(root).as_posix().replace(".", "_")
        for path, name in plain.items()
    }
    twice = [name for name, count in Counter(map(_flat, ids.values())).items() if count > 1]
    if twice:
        raise SslbenchError(f"{root}: two files would both be called {twice[0]!r}; rename one of them")
    return ids


def _flat(name: str) -> str:
    return name.replace("/", "-")


def _groups(paths: list[Path]) -> dict[Path, str]:
    """The first folder below the files' common folder; empty for files that lie in it directly."""
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return {path: path.relative_to(common).parts[0] if path.parent != common else "" for path in paths}


class _Transcripts:
    """Transcripts that lie beside audio files."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, str]] = {}

    def of(self, path: Path) -> str | None:
        """The transcript of an audio file in upper case with single spaces, None without one."""
        beside = path.with_suffix(".txt")
        if beside.is_file():
            text = beside.read_text(encoding="utf-8", errors="replace")
        else:
            text = self._lines(path.parent).get(path.stem, "")
        return " ".join(text.split()).upper() or None

    def _lines(self, folder: Path) -> dict[str, str]:
        if folder not in self._folders:
            lines: dict[str, str] = {}
            for file in sorted(folder.glob("*.trans.txt")):
                for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                    name, _, text = line.strip().partition(" ")
                    lines[name] = text
            self._folders[folder] = lines
        return self._folders[folder]


def _conversions(good: list[Checked], out: Path) -> list[str]:
    copied = [entry for entry in good if entry.audio != str(Path(entry.path).resolve())]
    kinds = Counter((entry.rate_hz, entry.channels) for entry in copied)
    return [
        f"{count} files of {rate} Hz, {channels} channel{'s' * (channels > 1)} were copied as "
        f"{SAMPLE_RATE_HZ} Hz mono flac to {out / 'audio'}"
        for (rate, channels), count in sorted(kinds.items())
    ]
