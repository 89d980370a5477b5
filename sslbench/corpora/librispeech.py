"""LibriSpeech in its own layout, read by lhotse's recipe; whatever splits are there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench import io
from sslbench.corpora import PrepareOptions
from sslbench.corpora._checked import check_all, hold_out, make_cut, report_skipped
from sslbench.errors import SslbenchError

if TYPE_CHECKING:
    from lhotse import MonoCut

LIMITED = {"train-10min": ["1h/0"], "train-1h": ["1h"], "train-10h": ["1h", "9h"]}
"""Libri-Light's limited supervision by folders of `librispeech_finetuning` (Kahn et al. 2020,
arXiv:1912.07875; as torchaudio's LibriLightLimited, 10 minutes are the first of the six folds)."""
WHOLE = ("train-clean-100", "train-clean-360", "train-other-500")
"""What `train-960` is made of."""
LEXICONS = ("lexicon.txt", "librispeech-lexicon.txt")
"""One of these becomes `lexicon.txt`: ours, or OpenSLR 11's."""
S3PRL_LEXICONS = ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")
"""SUPERB's, from s3prl's downstream/ctc/lexicon."""


def prepare(root: Path, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Make one manifest per LibriSpeech split found under `root` (or `root/LibriSpeech`).

    Without any dev (test) split, some training speakers become `dev-heldout` (`test-heldout`). A speaker's
    chapters are numbered as the label `session`. The three training parts together are `train-960`.
    Libri-Light's `librispeech_finetuning`, in or beside `root` or as `root` itself, becomes `train-10min`,
    `train-1h` and `train-10h`, each within the next. Pronunciation lexica beside the splits come along for
    phone recognition: s3prl's two, `lexicon.txt`, or else OpenSLR 11's.

    Returns:
        The content of `corpus.json`.

    Raises:
        SslbenchError: no split found, or none of its recordings can be used.
    """
    from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH

    return prepare_parts("librispeech", [*LIBRISPEECH, *MINI_LIBRISPEECH], root, out, options)


def prepare_parts(
    corpus: str, parts: Sequence[str], root: Path, out: Path, options: PrepareOptions
) -> dict[str, Any]:
    """Prepare those of `parts` that exist. See `prepare`."""
    from sslbench.data.manifests import write_corpus

    options.refuse_preset(corpus)
    home = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
    found = {part: [home / part] for part in parts if (home / part).is_dir()}
    if corpus == "librispeech":
        found.update(_limited(root))
    if not found:
        raise SslbenchError(f"{home}: holds none of the {corpus} splits ({', '.join(parts)}); check --root")
    genders = _genders(home / "SPEAKERS.TXT")
    splits: dict[str, list[MonoCut]] = {}
    skipped: list[dict[str, Any]] = []
    total = 0
    for part, folders in found.items():
        cuts, bad = _part(part, folders, genders, out, options)
        total += len(cuts) + len(bad)
        splits[part] = cuts
        skipped += bad
    report_skipped(out, corpus, total, skipped)
    _copy_lexica(home, out)
    notes = hold_out(splits, corpus, [name for name in splits if name not in LIMITED])
    if set(WHOLE) <= splits.keys():
        splits["train-960"] = [cut for part in WHOLE for cut in splits[part]]
    return write_corpus(out, corpus, splits, synthetic=False, skipped=skipped, facts={"notes": notes})


def _limited(root: Path) -> dict[str, list[Path]]:
    """The limited-supervision splits and their folders; none when they are not there."""
    for home in (root, root / "librispeech_finetuning", root.parent / "librispeech_finetuning"):
        if (home / "1h" / "0").is_dir():
            return {
                split: [home / folder for folder in folders]
                for split, folders in LIMITED.items()
                if all((home / folder).is_dir() for folder in folders)
            }
    return {}


def _part(
    part: str, folders: Sequence[Path], genders: dict[str, str], out: Path, options: PrepareOptions
) -> tuple[list[MonoCut], list[dict[str, Any]]]:
    """The cuts of one split, and the recordings left out."""
    lines = {name: text for folder in folders for name, text in _transcripts(folder)}
    audio = {path.stem: path for folder in folders for path in folder.rglob("*.flac")}
    names = options.limited(sorted(lines.keys() | audio.keys()), str)
    paths = [audio[name] for name in names if name in audio and name in lines]
    checked = check_all(paths, out, options.jobs, f"{part}: files decoded")
    sessions = _sessions(lines)
    cuts: list[MonoCut] = []
    skipped: list[dict[str, Any]] = []
    for name in names:
        path = audio.get(name, folders[0] / f"{name}.flac")
        home = path.parents[2] if part in LIMITED else folders[0]
        if name not in audio:
            reason = "the transcript names it but there is no such file"
        elif name not in lines:
            reason = "no transcript names it"
        else:
            reason = checked[path].reason or _unlike_lhotse(home, name, lines[name])
        if reason:
            skipped.append({"id": name, "path": str(path), "reason": reason})
            continue
        speaker = name.split("-")[0]
        cut = make_cut(
            name, checked[path], text=lines[name].upper(), speaker=speaker, gender=genders.get(speaker),
            language="English", labels={"session": sessions[_chapter(name)]},
        )  # fmt: skip
        cuts.append(cut)
    return cuts, skipped


def _chapter(name: str) -> str:
    return name.rsplit("-", 1)[0]


def _sessions(names: Iterable[str]) -> dict[str, int]:
    """Number each speaker's chapters from 0: another chapter is another recording session."""
    chapters: dict[str, list[str]] = {}
    for chapter in sorted({_chapter(name) for name in names}):
        chapters.setdefault(chapter.split("-")[0], []).append(chapter)
    return {chapter: number for own in chapters.values() for number, chapter in enumerate(own)}


def _copy_lexica(home: Path, out: Path) -> None:
    """Bring the pronunciation lexica along that the user has put beside the splits or above them.

    OpenSLR 11's stands back where s3prl's are: SUPERB takes its pronunciations from those.
    """
    found = {name: _beside(home, name) for name in S3PRL_LEXICONS}
    names = LEXICONS[:1] if any(found.values()) else LEXICONS
    found["lexicon.txt"] = next(filter(None, (_beside(home, name) for name in names)), None)
    for name, path in found.items():
        if path is not None:
            io.write_text(out / name, path.read_text(encoding="utf-8"))


def _beside(home: Path, name: str) -> Path | None:
    return next((folder / name for folder in (home, home.parent) if (folder / name).is_file()), None)


def _unlike_lhotse(part: Path, name: str, text: str) -> str:
    """Why lhotse's recipe would not take this line; empty when it does.

    The recipe's own loop stops at the first bad file, so its parts are called line by line.
    """
    from lhotse.recipes.librispeech import parse_utterance

    try:
        with _quiet():
            parsed = parse_utterance(part, f"{name} {text}", {})
    except Exception as error:  # soundfile, audioread, ValueError: any of them only costs this line
        return f"lhotse's recipe refuses it ({type(error).__name__}: {error})"
    return "" if parsed is not None else "not where its name says (speaker/chapter/name.flac)"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)


def _transcripts(part: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(part.rglob("*.trans.txt")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, text = line.strip().partition(" ")
            if name and text:
                yield name, text


def _genders(path: Path) -> dict[str, str]:
    """Speaker id to `M` or `F`, from SPEAKERS.TXT where it is there."""
    if not path.is_file():
        return {}
    rows = (line.split("|") for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != ";")
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 2}
