"""Characters, word pieces or phones as classes: learned from the training text, kept with the run."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslbench.errors import SslbenchError, did_you_mean
from sslbench.finetune.rnnt import BLANK as BLANK  # class 0 of every vocabulary
from sslbench.io import atomic_path, read_json, sha256_file, write_json

SPACE = "|"  # as fairseq's and k2SSL's character lexicons write the word boundary
BLANK_SYMBOL = "<blank>"


@dataclass
class Vocab:
    """Maps transcripts to class numbers and back; class 0 is the blank."""

    symbols: list[str]
    """Symbol of each class."""
    unknown: Counter[str] = field(default_factory=Counter)
    """What `encode` left out, with counts."""

    unit = ""
    """`char`, `bpe` or `phone`; written into `vocab.json`."""

    def __post_init__(self) -> None:
        if self.symbols[:1] != [BLANK_SYMBOL] or len(set(self.symbols)) != len(self.symbols):
            raise SslbenchError("vocabulary: the first symbol must be '<blank>', and none may come twice")
        self._number = {symbol: number for number, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def scored(self) -> str:
        """What a transcript consists of for scoring: `word` or `phone`."""
        return "word"

    def encode(self, text: str) -> list[int]:
        """Classes of a transcript; symbols that are not in the vocabulary are left out and counted."""
        classes = []
        for symbol in self._split(text):
            number = self._number.get(symbol)
            if number is None:
                self.unknown[symbol] += 1
            else:
                classes.append(number)
        return classes

    def _split(self, text: str) -> Iterable[str]:
        raise NotImplementedError

    def decode(self, classes: Sequence[int]) -> str:
        """Text of classes without blanks and repeats."""
        raise NotImplementedError

    def save(self, path: Path | str) -> None:
        """Write as JSON."""
        write_json(path, {"unit": self.unit, "symbols": self.symbols})

    @staticmethod
    def load(path: Path | str) -> Vocab:
        """Read what `save` wrote, of whatever unit. Raises `SslbenchError` when it is damaged."""
        stored = read_json(path)
        if stored.get("unit", "char") != BpeVocab.unit:
            symbols: list[str] = stored["symbols"]
            return UNITS[stored.get("unit", "char")](symbols)
        model = Path(path).with_name(BpeVocab.MODEL)
        if not model.is_file() or sha256_file(model) != stored["sha256"]:
            raise SslbenchError(f"{model}: missing, or not the model that {path} was written with")
        return BpeVocab(model.read_bytes())


class CharVocab(Vocab):
    """Characters; class 1 is the word boundary."""

    unit = "char"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.symbols[1:2] != [SPACE]:
            raise SslbenchError("vocabulary: the second character class must be '|'")

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> CharVocab:
        """The characters of a corpus. Raises `SslbenchError` when there are none, or one is `|`."""
        seen = {character for text in texts for character in "".join(text.split())}
        if not seen or SPACE in seen:
            raise SslbenchError(
                "vocabulary: the training text "
                + ("holds the character '|', which marks word boundaries" if seen else "is empty")
            )
        return cls([BLANK_SYMBOL, SPACE, *sorted(seen)])

    def _split(self, text: str) -> Iterable[str]:
        return SPACE.join(text.split())

    def decode(self, classes: Sequence[int]) -> str:
        """Text; several boundaries in a row count as one."""
        text = "".join(" " if number == 1 else self.symbols[number] for number in classes)
        return " ".join(text.split())


class PhoneVocab(Vocab):
    """Phones, which transcripts write with spaces between."""

    unit = "phone"

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> PhoneVocab:
        """The phones of a corpus. Raises `SslbenchError` when there are none."""
        seen = {phone for text in texts for phone in text.split()}
        if not seen:
            raise SslbenchError("vocabulary: the training clips have no phones")
        return cls([BLANK_SYMBOL, *sorted(seen)])

    @property
    def scored(self) -> str:
        """Phones."""
        return "phone"

    def _split(self, text: str) -> Iterable[str]:
        return text.split()

    def decode(self, classes: Sequence[int]) -> str:
        """Phones with spaces between."""
        return " ".join(self.symbols[number] for number in classes)


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise SslbenchError("units: bpe needs sentencepiece: pip install 'sslbench[asr]'") from None
    return sentencepiece


class BpeVocab(Vocab):
    """Byte-pair word pieces by sentencepiece, whose model lies beside `vocab.json` as `bpe.model`."""

    unit = "bpe"
    MODEL = "bpe.model"

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._pieces: Any = _sentencepiece().SentencePieceProcessor(model_proto=model)
        super().__init__([self._pieces.id_to_piece(number) for number in range(len(self._pieces))])

    @classmethod
    def from_texts(cls, texts: Iterable[str], size: int) -> BpeVocab:
        """Learn `size` pieces, blank and unknown included.

        Raises:
            SslbenchError: no text, or a size that the text cannot give.
        """
        import io

        trainer = _sentencepiece().SentencePieceTrainer
        lines = [line for text in texts if (line := " ".join(text.split()))]
        if not lines:
            raise SslbenchError("vocabulary: the training text is empty")
        model = io.BytesIO()
        try:
            trainer.train(
                sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=size,
                character_coverage=1.0, normalization_rule_name="identity", num_threads=1,
                pad_id=BLANK, pad_piece=BLANK_SYMBOL, unk_id=1, bos_id=-1, eos_id=-1,
                max_sentence_length=65536, minloglevel=2,
            )  # fmt: skip
        except RuntimeError as error:
            raise SslbenchError(
                f"vocabulary: sentencepiece cannot learn {size} pieces from this text ({error}); "
                "change bpe_size"
            ) from None
        return cls(model.getvalue())

    def encode(self, text: str) -> list[int]:
        """Pieces of a transcript; unknown ones are left out and counted."""
        text = " ".join(text.split())
        numbers: list[int] = self._pieces.encode(text)
        for piece, number in zip(self._pieces.encode(text, out_type=str), numbers, strict=True):
            if number == self._pieces.unk_id():
                self.unknown[piece] += 1
        return [number for number in numbers if number != self._pieces.unk_id()]

    def decode(self, classes: Sequence[int]) -> str:
        """Text of pieces."""
        return " ".join(str(self._pieces.decode([int(number) for number in classes])).split())

    def save(self, path: Path | str) -> None:
        """Write `vocab.json`, and `bpe.model` beside it."""
        model = Path(path).with_name(self.MODEL)
        with atomic_path(model) as temporary:
            temporary.write_bytes(self.model)
        write_json(path, {"unit": self.unit, "symbols": self.symbols, "sha256": sha256_file(model)})


UNITS: dict[str, type[Vocab]] = {"char": CharVocab, "phone": PhoneVocab}  # those that are their symbols


def build_vocab(unit: str, texts: Iterable[str], bpe_size: int) -> Vocab:
    """Learn a vocabulary from training texts (phones, for `phone`). Raises `SslbenchError` when it cannot."""
    makers: dict[str, Callable[[], Vocab]] = {
        "char": lambda: CharVocab.from_texts(texts),
        "bpe": lambda: BpeVocab.from_texts(texts, bpe_size),
        "phone": lambda: PhoneVocab.from_texts(texts),
    }
    if unit not in makers:
        raise SslbenchError(f"vocabulary: no unit {unit!r}; {did_you_mean(unit, makers)}")
    return makers[unit]()


def frames_needed(classes: Sequence[int]) -> int:
    """The fewest frames CTC can emit these classes in: a blank must part equal neighbours."""
    return len(classes) + sum(a == b for a, b in itertools.pairwise(classes))
