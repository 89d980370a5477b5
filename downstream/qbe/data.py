"""Queries and documents: QUESST 2014 (English part), or words cut out of an aligned corpus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lhotse.cut import Cut

from sslbench.data.manifests import open_manifest, splits
from sslbench.errors import SslbenchError
from sslbench.probe.files import AudioFile, file_cuts, is_prepared, lot, manifest_parts
from sslbench.probe.splits import of_kinds, text_of

CORPUS = "quesst14"
LANGUAGE = "nnenglish"
LISTS = {"dev": "language_key_dev.lst", "test": "language_key_eval.lst"}
DOCUMENT_LIST = "language_key_utterances.lst"
TRUTHS = {"dev": "groundtruth_quesst14_dev", "test": "groundtruth_quesst14_eval"}
MIN_LETTERS = 4
_TERM = re.compile(r'<term\s[^>]*?\btermid="([^"]+)"')
_EXCERPT = re.compile(r'<excerpt\s[^>]*?\baudio_filename="([^"]+)"')


@dataclass(frozen=True)
class Search:
    """One part: what is looked for, where, and what there is to be found."""

    queries: list[Cut]
    documents: list[Cut]
    found: dict[str, set[str]]
    """Query id → ids of the documents that hold it; also of queries and documents that are not searched."""
    counted: int | None = None
    """Documents of the ground truth, where more than `documents`."""


def quesst_home(root: Path) -> Path | None:
    """`root` or `root/quesst14Database` when it looks like QUESST 2014."""
    homes = [home for home in (root / "quesst14Database", root) if (home / "scoring").is_dir()]
    return homes[0] if homes else None


def read_quesst(home: Path) -> dict[str, Search]:
    """Dev and test ("eval") of the English part, as s3prl's quesst14_dtw selects it.

    Raises:
        SslbenchError: naming everything of the layout that is missing.
    """
    scoring = home / "scoring"
    wanted = [*LISTS.values(), DOCUMENT_LIST, *TRUTHS.values()]
    missing = [f"scoring/{name}" for name in wanted if not (scoring / name).exists()]
    if missing:
        raise SslbenchError(f"{home}: lacks {', '.join(missing)}; unpack quesst14Database.tgz again")
    documents = _audio(home, scoring / DOCUMENT_LIST)
    return {
        part: Search(_audio(home, scoring / name), documents, *read_truth(scoring / TRUTHS[part]))
        for part, name in LISTS.items()
    }


def _audio(home: Path, listing: Path) -> list[Cut]:
    """The English entries, `…/FOLDER/FILE.wav nnenglish`, below the database's root."""
    rows = [line.split() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    paths = [home / re.sub(r"^.*?/", "", row[0]) for row in rows if row[1] == LANGUAGE]
    absent = [str(path.relative_to(home)) for path in paths if not path.is_file()]
    if absent or not paths:
        what = f"{len(absent)} files that it names are missing ({', '.join(absent[:3])})"
        raise SslbenchError(f"{listing}: {what if absent else f'has no {LANGUAGE} entry'}")
    # telephone speech of 8 kHz: resampled when read, which s3prl leaves to sox
    return list(file_cuts([AudioFile(path, path.stem, path.stem) for path in paths], CORPUS))


def read_truth(folder: Path) -> tuple[dict[str, set[str]], int]:
    """Where each query occurs, and the number of documents, of all languages, as QUESST's scorer reads them.

    Queries are the terms of the `.tlist.xml`, documents the excerpts of the `.ecf.xml`; lines of the `.rttm`
    about others (`NO_KEYWORD`) do not count.

    Raises:
        SslbenchError: one of the three files is missing, or there are several.
    """
    texts = {}
    for kind in ("tlist.xml", "ecf.xml", "rttm"):
        files = list(folder.glob(f"*.{kind}"))
        if len(files) != 1:
            raise SslbenchError(f"{folder}: holds {len(files)} .{kind} files; the ground truth has one")
        texts[kind] = files[0].read_text(encoding="utf-8")
    terms = set(_TERM.findall(texts["tlist.xml"]))
    documents = {PurePosixPath(name).stem for name in _EXCERPT.findall(texts["ecf.xml"])}
    found: dict[str, set[str]] = {}
    for line in texts["rttm"].splitlines():
        words = line.split()
        if len(words) > 5 and words[5] in terms and words[1] in documents:
            found.setdefault(words[5], set()).add(words[1])
    return found, len(documents)


def read_manifests(root: Path, settings: dict[str, Any], tier: str) -> dict[str, Search]:
    """Words of one split cut out by their phone alignment, looked for in the utterances of others.

    A word becomes a query where the lexicon's phones of all words of its utterance are as many as those
    aligned, and it occurs in some documents but not in all.

    Raises:
        SslbenchError: splits, alignments or the lexicon are missing, or no word qualifies.
    """
    lexicon = root / "lexicon.txt"
    if not is_prepared(root) or not lexicon.is_file():
        raise SslbenchError(
            f"{root}: query by example needs QUESST 2014 (scoring/, Audio/ …), or manifests with phone "
            "alignments and a lexicon.txt"
        )
    rows = [line.split() for line in lexicon.read_text(encoding="utf-8").splitlines()]
    phones = {word: len(spelled) for word, *spelled in rows}
    kinds, limits = settings["kinds"], settings["limits"][tier]
    held = [name for name in settings["documents"] if name in splits(root)]
    pool = [cut for name in held for cut in of_kinds(list(open_manifest(root / f"{name}.jsonl.gz")), kinds)]
    documents = _drawn(pool, limits["documents"])
    # no part is trained; the same split stands in for it
    sources = manifest_parts(root, {**settings, "train": settings["dev"]})
    parts = {}
    for part in LISTS:
        parts[part] = _words_search(of_kinds(sources[part], kinds), documents, phones, limits["queries"])
        if not parts[part].queries:
            raise SslbenchError(f"{root}: no word of {settings[part]} can serve as a query")
    return parts


def _words_search(
    sources: Sequence[Cut], documents: list[Cut], phones: dict[str, int], limit: int | None
) -> Search:
    held = {cut.id: set(text_of(cut).split()) for cut in documents}
    made: dict[str, tuple[Cut, set[str]]] = {}
    for cut in sources:
        for word, start, end in word_times(cut, phones):
            where = {name for name, words in held.items() if word in words and name != cut.id}
            if len(word) >= MIN_LETTERS and 0 < len(where) < len(documents) and word not in made:
                piece = cut.truncate(offset=start, duration=end - start).with_id(f"{cut.id}-{word}")
                made[word] = (piece, where)
    chosen = _drawn([piece for piece, _ in made.values()], limit)
    found = {piece.id: where for piece, where in made.values()}
    return Search(chosen, documents, {piece.id: found[piece.id] for piece in chosen})


def word_times(cut: Cut, phones: dict[str, int]) -> list[tuple[str, float, float]]:
    """(word, start, end) of each word in seconds; empty where alignment and lexicon disagree in number."""
    items = [item for s in cut.supervisions for item in (s.alignment or {}).get("phone", [])]
    spoken = sorted((item for item in items if item.symbol != "SIL"), key=lambda item: item.start)
    words = text_of(cut).split()
    if any(word not in phones for word in words) or sum(phones[word] for word in words) != len(spoken):
        return []
    times, place = [], 0
    for word in words:
        own = spoken[place : place + phones[word]]
        place += phones[word]
        times.append((word, float(own[0].start), float(own[-1].end)))
    return times


def _drawn(cuts: Sequence[Cut], limit: int | None) -> list[Cut]:
    """At most `limit` in their order, chosen by the hash of their ids."""
    kept = {cut.id for cut in sorted(cuts, key=lambda cut: lot(cut.id))[:limit]}
    return [cut for cut in cuts if cut.id in kept]
