"""The official phone set and lexica of phone recognition."""

from __future__ import annotations

from pathlib import Path

from sslbench.data.phones import Lexicon, read_lexicon
from sslbench.probe.splits import librispeech_home

# ours, or the two of s3prl's libriphone.yaml, of which the first to know a word counts
LEXICONS = ("lexicon.txt", "librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"


def official_phones() -> list[str]:
    """s3prl's `ctc/vocab/phoneme.txt`: SIL, SPN, vowels with stress 0, 1 and 2, consonants."""
    stressed = [f"{vowel}{stress}" for vowel in VOWELS.split() for stress in range(3)]
    return ["SIL", "SPN", *sorted(stressed + CONSONANTS.split())]


def corpus_lexicon(root: Path) -> Lexicon:
    """The lexicon beside the manifests, or beside LibriSpeech's splits; empty without one."""
    lexicon = read_lexicon(root, LEXICONS)
    home = librispeech_home(root)
    return {**read_lexicon(home, LEXICONS), **lexicon} if home else lexicon


def lexicon_files(root: Path) -> list[Path]:
    """The files behind `corpus_lexicon`, the first to know a word first."""
    folders = dict.fromkeys(filter(None, (root, librispeech_home(root))))
    return [path for folder in folders for name in LEXICONS if (path := folder / name).is_file()]


def has_stress(lexicon: Lexicon) -> bool:
    """Whether vowels carry stress digits, as in CMUdict and LibriSpeech's lexicons."""
    return any(phone[-1].isdigit() for phones in lexicon.values() for phone in phones)
