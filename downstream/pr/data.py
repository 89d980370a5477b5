"""Phone sequences of cuts: from their alignment, or from a pronunciation lexicon."""

from __future__ import annotations

import re
from pathlib import Path

from lhotse.cut import Cut

from sslbench.errors import SslbenchError
from sslbench.probe.splits import librispeech_home, text_of

SILENCES = {"", "SIL", "SP", "SPN", "NSN", "<EPS>"}
# ours, or the two of s3prl's libriphone.yaml, of which the first to know a word counts
LEXICONS = ("lexicon.txt", "librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"

Lexicon = dict[str, list[str]]


def official_phones() -> list[str]:
    """s3prl's `ctc/vocab/phoneme.txt`: SIL, SPN, vowels with stress 0, 1 and 2, consonants."""
    stressed = [f"{vowel}{stress}" for vowel in VOWELS.split() for stress in range(3)]
    return ["SIL", "SPN", *sorted(stressed + CONSONANTS.split())]


def read_lexicon(folder: Path) -> Lexicon:
    """The lexicon of a corpus folder, `WORD PHONE …` per line; the first pronunciation of a word counts.

    Returns:
        Empty without any of `LEXICONS`.
    """
    words: Lexicon = {}
    homes = dict.fromkeys([folder, librispeech_home(folder) or folder])
    for path in (home / name for home in homes for name in LEXICONS):
        if not path.is_file():
            continue
        for line in filter(str.strip, path.read_text(encoding="utf-8").splitlines()):
            word, *phones = line.split()
            words.setdefault(re.sub(r"\(\d+\)$", "", word).upper(), phones)
    return words


def has_stress(lexicon: Lexicon) -> bool:
    """Whether vowels carry stress digits, as in CMUdict and LibriSpeech's lexicons."""
    return any(phone[-1].isdigit() for phones in lexicon.values() for phone in phones)


def phones_of(cut: Cut, lexicon: Lexicon) -> list[str]:
    """The phones said in a cut, without silence.

    An alignment says what was said, without stress; a lexicon what the words prescribe, with its stress.

    Raises:
        SslbenchError: neither an alignment nor a lexicon, or a word that the lexicon lacks.
    """
    items = [item for s in cut.supervisions for item in (s.alignment or {}).get("phone", [])]
    symbols = [re.sub(r"\d+$", "", item.symbol) for item in sorted(items, key=lambda item: item.start)]
    if not symbols:
        words = text_of(cut).split()
        if words and not lexicon:
            raise SslbenchError(
                f"{cut.id}: has no phone alignment and its corpus folder no {LEXICONS[0]} nor s3prl's "
                f"{' and '.join(LEXICONS[1:])}; phone recognition needs one of them"
            )
        unknown = [word for word in words if word not in lexicon]
        if unknown:
            raise SslbenchError(f"{cut.id}: the lexicon lacks {', '.join(unknown[:5])}; add the words")
        symbols = [phone for word in words for phone in lexicon[word]]
    return [symbol for symbol in symbols if symbol.upper() not in SILENCES]
