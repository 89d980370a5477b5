"""Phone sequences of cuts: from their alignment, or from a pronunciation lexicon."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lhotse.cut import Cut

from sslbench.errors import SslbenchError

SILENCES = {"", "SIL", "SP", "SPN", "NSN", "<EPS>"}
LEXICON = "lexicon.txt"

Lexicon = dict[str, list[str]]


def read_lexicon(folder: Path, names: Sequence[str] = (LEXICON,)) -> Lexicon:
    """The lexica of a corpus folder, `WORD PHONE …` per line; the first pronunciation of a word counts.

    Args:
        folder: as `sslbench data prepare` leaves it, or a corpus's own.
        names: files to look for, in this order.

    Returns:
        Empty without any of them.
    """
    words: Lexicon = {}
    for path in (folder / name for name in names):
        if not path.is_file():
            continue
        for line in filter(str.strip, path.read_text(encoding="utf-8").splitlines()):
            word, *phones = line.split()
            words.setdefault(re.sub(r"\(\d+\)$", "", word).upper(), phones)
    return words


def phones_of(cut: Cut, lexicon: Lexicon, stress: bool = False) -> list[str]:
    """The phones said in a cut, without silence; none for an empty transcript.

    An alignment says what was said, without stress; a lexicon what the words prescribe.

    Args:
        cut: with an alignment or a transcript.
        lexicon: words in upper case.
        stress: keep the lexicon's stress digits.

    Raises:
        SslbenchError: neither an alignment nor a lexicon, or a word that the lexicon lacks.
    """
    items = [item for s in cut.supervisions for item in (s.alignment or {}).get("phone", [])]
    symbols = [_bare(item.symbol) for item in sorted(items, key=lambda item: item.start)]
    if not symbols:
        words = [word for s in cut.supervisions for word in (s.text or "").upper().split()]
        if words and not lexicon:
            raise SslbenchError(
                f"{cut.id}: has no phone alignment and its corpus folder no {LEXICON}; "
                "phone recognition needs one of them"
            )
        unknown = [word for word in words if word not in lexicon]
        if unknown:
            raise SslbenchError(f"{cut.id}: the lexicon lacks {', '.join(unknown[:5])}; add the words")
        prescribed = [phone for word in words for phone in lexicon[word]]
        symbols = prescribed if stress else [_bare(phone) for phone in prescribed]
    return [symbol for symbol in symbols if symbol.upper() not in SILENCES]


def _bare(symbol: str) -> str:
    return re.sub(r"\d+$", "", symbol)
