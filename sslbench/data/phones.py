"""Phone sequences of cuts: from their alignment, or from a pronunciation lexicon."""

from __future__ import annotations

import re
from pathlib import Path

from lhotse.cut import Cut

from sslbench.errors import SslbenchError

SILENCES = {"", "SIL", "SP", "SPN", "NSN", "<EPS>"}
LEXICON = "lexicon.txt"

Lexicon = dict[str, list[str]]


def read_lexicon(folder: Path) -> Lexicon:
    """`lexicon.txt` of a corpus folder, `WORD PHONE …` per line; the first pronunciation of a word counts.

    Returns:
        Empty without such a file.
    """
    path = folder / LEXICON
    if not path.is_file():
        return {}
    words: Lexicon = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phones = line.split()
        words.setdefault(re.sub(r"\(\d+\)$", "", word).upper(), phones)
    return words


def phones_of(cut: Cut, lexicon: Lexicon) -> list[str]:
    """The phones said in a cut, without silence; stress digits are kept off.

    Raises:
        SslbenchError: neither an alignment nor a lexicon, or a word that the lexicon lacks.
    """
    items = [item for s in cut.supervisions for item in (s.alignment or {}).get("phone", [])]
    symbols = [item.symbol for item in sorted(items, key=lambda item: item.start)]
    if not symbols:
        if not lexicon:
            raise SslbenchError(
                f"{cut.id}: has no phone alignment and its corpus folder no {LEXICON}; "
                "phone recognition needs one of them"
            )
        words = [word for s in cut.supervisions for word in (s.text or "").upper().split()]
        unknown = [word for word in words if word not in lexicon]
        if unknown:
            raise SslbenchError(f"{cut.id}: {LEXICON} lacks {', '.join(unknown[:5])}; add the words")
        symbols = [phone for word in words for phone in lexicon[word]]
    bare = [re.sub(r"\d+$", "", symbol) for symbol in symbols]
    return [symbol for symbol in bare if symbol.upper() not in SILENCES]
