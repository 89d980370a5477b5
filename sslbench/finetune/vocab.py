"""Characters as CTC classes, learned from the training text and kept with the experiment."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sslbench.errors import SslbenchError
from sslbench.io import read_json, write_json

BLANK = 0
SPACE = "|"  # as fairseq's and k2SSL's character lexicons write the word boundary


@dataclass
class CharVocab:
    """Maps transcripts to class numbers and back; class 0 is CTC's blank, class 1 the word boundary."""

    symbols: list[str]
    """Symbol of each class."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Characters that `encode` left out, with their counts."""

    def __post_init__(self) -> None:
        if self.symbols[:2] != ["<blank>", SPACE] or len(set(self.symbols)) != len(self.symbols):
            raise SslbenchError("vocabulary: the first symbols must be '<blank>' and '|', and none twice")
        self._number = {symbol: number for number, symbol in enumerate(self.symbols)}

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> CharVocab:
        """The characters of a corpus. Raises `SslbenchError` when there are none, or one is `|`."""
        seen = {character for text in texts for character in "".join(text.split())}
        if not seen or SPACE in seen:
            raise SslbenchError(
                "vocabulary: the training text "
                + ("holds the character '|', which marks word boundaries" if seen else "is empty")
            )
        return cls(["<blank>", SPACE, *sorted(seen)])

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Classes of a transcript; characters that are not in the vocabulary are left out and counted."""
        classes = []
        for character in SPACE.join(text.split()):
            number = self._number.get(character)
            if number is None:
                self.unknown[character] += 1
            else:
                classes.append(number)
        return classes

    def decode(self, classes: Sequence[int]) -> str:
        """Text of classes without blanks and repeats; several boundaries in a row count as one."""
        text = "".join(" " if number == 1 else self.symbols[number] for number in classes)
        return " ".join(text.split())

    def save(self, path: Path | str) -> None:
        """Write as JSON."""
        write_json(path, {"symbols": self.symbols})

    @classmethod
    def load(cls, path: Path | str) -> CharVocab:
        """Read what `save` wrote."""
        return cls(list(read_json(path)["symbols"]))


def frames_needed(classes: Sequence[int]) -> int:
    """The fewest frames CTC can emit these classes in: a blank must part equal neighbours."""
    return len(classes) + sum(a == b for a, b in itertools.pairwise(classes))
