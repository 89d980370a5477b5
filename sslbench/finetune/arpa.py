"""Word n-gram models from transcripts, as ARPA files: interpolated Kneser-Ney.

Chen & Goodman 1998 (TR-10-98), equations for the interpolated form with one discount per order,
D = n1 / (n1 + 2 n2). Small corpora only; for large ones, KenLM's `lmplz` makes the same file.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from sslbench.errors import SslbenchError

Ngram = tuple[str, ...]
START, END, UNKNOWN = "<s>", "</s>", "<unk>"
NEVER_LOG10 = -99.0  # ARPA's zero: <s> is never predicted
KENLM = b"mmap lm http://kheafield.com/code"  # begins what its build_binary writes


class KneserNey:
    """Probabilities of the next word after a history, from counts of one corpus."""

    def __init__(self, texts: Iterable[str], order: int) -> None:
        """Count.

        Args:
            texts: one utterance each.
            order: longest n-gram.

        Raises:
            SslbenchError: no words, or an order below 1.
        """
        if order < 1:
            raise SslbenchError("lm: the order must be at least 1")
        self.order = order
        highest: Counter[Ngram] = Counter()
        lines = 0
        for text in texts:
            lines += bool(text.split())
            highest.update(_ngrams(text.split(), order))
        if not lines:
            raise SslbenchError("lm: the text holds no words")
        self.counts = _lower_orders(highest, order)
        self.words = sorted({gram[-1] for gram in self.counts[0]} | {UNKNOWN})
        self._discounts = [_discount(counts) for counts in self.counts]
        self._totals = [_totals(counts) for counts in self.counts]

    def probability(self, gram: Ngram) -> float:
        """P(last word | words before it), the history at most order - 1 words long."""
        if not gram[:-1]:
            left = self.backoff(())
            seen = max(self.counts[0][gram] - self._discounts[0], 0.0) / self._totals[0][()][0]
            return seen + left / len(self.words)
        level = len(gram) - 1
        shorter = self.probability(gram[1:])
        if gram[:-1] not in self._totals[level]:
            return shorter
        seen = max(self.counts[level][gram] - self._discounts[level], 0.0) / self._totals[level][gram[:-1]][0]
        return seen + self.backoff(gram[:-1]) * shorter

    def backoff(self, history: Ngram) -> float:
        """Probability that a history leaves to shorter ones; 1 for one that was never seen."""
        total, followers = self._totals[len(history)].get(history, (0, 0))
        return self._discounts[len(history)] * followers / total if total else 1.0

    def arpa(self) -> Iterator[str]:
        """The lines of the ARPA file."""
        grams: list[list[Ngram]] = [[(START,), *((word,) for word in self.words)]]
        grams += [sorted(counts) for counts in self.counts[1:]]
        yield "\\data\\"
        yield from (f"ngram {n}={len(found)}" for n, found in enumerate(grams, 1))
        for n, found in enumerate(grams, 1):
            yield ""
            yield f"\\{n}-grams:"
            yield from (self._line(gram) for gram in found)
        yield ""
        yield "\\end\\"

    def _line(self, gram: Ngram) -> str:
        log10 = NEVER_LOG10 if gram == (START,) else math.log10(self.probability(gram))
        line = f"{log10:.6f}\t{' '.join(gram)}"
        if len(gram) == self.order or gram[-1] == END:
            return line
        return f"{line}\t{math.log10(max(self.backoff(gram), 1e-30)):.6f}"


def _ngrams(words: list[str], order: int) -> Iterator[Ngram]:
    """For each predicted word, the longest n-gram that ends with it."""
    padded = [START, *words, END]
    for end in range(2, len(padded) + 1):
        yield tuple(padded[max(0, end - order) : end])


def _lower_orders(highest: Counter[Ngram], order: int) -> list[Counter[Ngram]]:
    """Counts by length. Below the highest order, in how many contexts an n-gram occurs; those at the start
    of an utterance have only one context, and are counted as often as they occur."""
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    for gram, number in highest.items():
        counts[len(gram) - 1][gram] += number
    for level in range(order - 1, 0, -1):
        for gram in counts[level]:
            counts[level - 1][gram[1:]] += 1
    return counts


def _discount(counts: Counter[Ngram]) -> float:
    once, twice = (sum(number == n for number in counts.values()) for n in (1, 2))
    # corpora without n-grams that occur once or twice still need mass for the unseen
    return once / (once + 2 * twice) if once and twice else 0.5


def _totals(counts: Counter[Ngram]) -> dict[Ngram, tuple[int, int]]:
    totals: dict[Ngram, tuple[int, int]] = {}
    for gram, number in counts.items():
        total, followers = totals.get(gram[:-1], (0, 0))
        totals[gram[:-1]] = total + number, followers + 1
    return totals


def read_arpa(path: Path | str) -> list[dict[Ngram, tuple[float, float]]]:
    """The n-grams of an ARPA file by length: (log10 probability, log10 back-off).

    Raises:
        SslbenchError: missing, or no ARPA file.
    """
    levels: list[dict[Ngram, tuple[float, float]]] = []
    for gram, weights in _lines(path):
        while len(levels) < len(gram):
            levels.append({})
        levels[len(gram) - 1][gram] = weights
    return levels


def arpa_words(path: Path | str) -> Iterator[str]:
    """The words of an ARPA file, marks included; what comes after its unigrams is not read.

    Raises:
        SslbenchError: missing, or no ARPA file.
    """
    for gram, _ in _lines(path):
        if len(gram) > 1:
            return
        yield gram[0]


def _lines(path: Path | str) -> Iterator[tuple[Ngram, tuple[float, float]]]:
    """N-grams with their probability and back-off in the order of a file, which may be gzipped."""
    path = Path(path)
    if not path.is_file():
        raise SslbenchError(f"{path}: no such language model; 'sslbench lm' makes one from text")
    n = 0
    try:
        with opened(path) as stream:
            for number, line in enumerate(stream, 1):
                if line.startswith("\\") and line.strip().endswith("-grams:"):
                    n += 1
                elif n and line.strip() and not line.startswith("\\"):
                    yield _gram(line.split(), n, f"{path}:{number}")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SslbenchError(
            f"{path}: is no ARPA text file, plain or .gz ({_kind(path, error)}); 'sslbench lm' and "
            "KenLM's lmplz make one"
        ) from None
    if not n:
        raise SslbenchError(f"{path}: is no ARPA file (it has no \\1-grams section)")


def _gram(fields: list[str], n: int, where: str) -> tuple[Ngram, tuple[float, float]]:
    try:
        if len(fields) not in (n + 1, n + 2):
            raise ValueError
        backoff = float(fields[n + 1]) if len(fields) == n + 2 else 0.0
        return tuple(fields[1 : n + 1]), (float(fields[0]), backoff)
    except ValueError:
        raise SslbenchError(f"{where}: expected a probability, {n} words and a back-off") from None


def _kind(path: Path, error: Exception) -> str:
    with path.open("rb") as stream:
        return "a KenLM binary" if stream.read(len(KENLM)) == KENLM else str(error)


def opened(path: Path) -> TextIO:
    """An ARPA file as text, unpacked where its name ends in `.gz`."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")
