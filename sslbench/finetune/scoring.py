"""Word, character and phone error rates of a scored set, with intervals and paired tests."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sslbench.errors import SslbenchError, did_you_mean
from sslbench.finetune.counts import COUNTING, Counts, count_edits
from sslbench.finetune.transcripts import Transcript
from sslbench.report.schema import Metric
from sslbench.report.stats import PairedTest, bootstrap_ratio, paired_test


def _raw(text: str) -> str:
    return text


def _upper(text: str) -> str:
    return unicodedata.normalize("NFKC", text).upper()


def _words(text: str) -> str:
    kept: list[str] = []
    for c in _upper(text).replace("\u2019", "'"):
        kind = unicodedata.category(c)[0]  # marks are vowel signs and accents: a word does not end there
        inside = kind in "LN" or c == "'" or (kind == "M" and kept[-1:] not in ([], [" "]))
        kept.append(c if inside else " ")
    return "".join(kept)


NORMALISERS: dict[str, Callable[[str], str]] = {"raw": _raw, "upper": _upper, "words": _words}
"""`raw`: as written. `upper`: NFKC and upper case. `words`: that, and what is no letter, mark, number or
apostrophe (a curly one is made straight) becomes a space. White space separates words in all of them."""


@dataclass(frozen=True)
class Utterance:
    """One scored utterance."""

    id: str
    speaker: str | None
    reference: list[str]
    hypothesis: list[str]
    words: Counts
    """Of words, or of phones where those were scored."""
    characters: Counts


@dataclass
class Score:
    """A scored set."""

    utterances: list[Utterance]
    normaliser: str
    missing: list[str] = field(default_factory=list)
    """Ids without a hypothesis; each counts as if nothing had been recognised."""
    unit: str = "word"
    """What the texts are made of: `word` or `phone`."""
    counting: str = "levenshtein"
    """A name in `counts.COUNTING`."""
    seed: int = 0
    """Of the draws behind intervals and paired tests."""

    def rates(self) -> dict[str, str]:
        """Metric names and the level that each is taken from, the headline first."""
        return {"per": "words"} if self.unit == "phone" else {"wer": "words", "cer": "characters"}

    def total(self, level: str) -> Counts:
        """Pooled counts of `words` or `characters`."""
        return sum((getattr(utterance, level) for utterance in self.utterances), Counts())

    def groups(self) -> list[str] | None:
        """The speaker of each utterance; None unless all are known."""
        speakers = [utterance.speaker for utterance in self.utterances]
        return None if None in speakers else [str(speaker) for speaker in speakers]

    def metric(self, level: str) -> Metric:
        """The error rate in percent with its 95 % interval, over speakers where at least two are known, else
        over utterances."""
        counts = [getattr(utterance, level) for utterance in self.utterances]
        value = 100 * self.total(level).rate
        low, high = bootstrap_ratio(
            [count.errors for count in counts], [count.ref for count in counts], self.groups(), seed=self.seed
        )
        return Metric(
            value=value, unit="%", higher_is_better=False, low=100 * low, high=100 * high, n=len(counts)
        )


def score(
    references: Mapping[str, Transcript],
    hypotheses: Mapping[str, Transcript],
    normaliser: str | None = None,
    unit: str = "word",
    counting: str = "levenshtein",
    seed: int = 0,
) -> Score:
    """Compare hypotheses with references.

    Args:
        references: what was said.
        hypotheses: what was recognised, by the same ids; a missing one counts as empty.
        normaliser: a name in `NORMALISERS`, applied to both sides; by default `upper` for words, and
            `raw` for phones, of which some differ by case only.
        unit: `word`, or `phone` when the texts are phones.
        counting: how word errors are counted: `levenshtein` (as jiwer) or `sclite`.
        seed: of the draws behind intervals and paired tests.

    Raises:
        SslbenchError: unknown normaliser or counting, or hypotheses of utterances not in the reference.
    """
    normaliser = normaliser or ("raw" if unit == "phone" else "upper")
    for name, known in ((normaliser, NORMALISERS), (counting, COUNTING)):
        if name not in known:
            raise SslbenchError(f"score: no {name!r}; {did_you_mean(name, known)}")
    strange = [identifier for identifier in hypotheses if identifier not in references]
    if strange:
        raise SslbenchError(
            f"score: {len(strange)} hypotheses have no reference, first {strange[0]!r}; is it the right file?"
        )
    missing = [i for i in references if i not in hypotheses]
    scored = Score([], normaliser, missing, unit, counting, seed)
    for identifier, reference in references.items():
        found = hypotheses.get(identifier)
        said = NORMALISERS[normaliser](reference.text).split()
        heard = NORMALISERS[normaliser](found.text).split() if found else []
        words = COUNTING[counting](said, heard)
        characters = Counts() if unit == "phone" else count_edits(" ".join(said), " ".join(heard))
        scored.utterances.append(Utterance(identifier, reference.speaker, said, heard, words, characters))
    return scored


def compare(ours: Score, theirs: Score) -> PairedTest:
    """Whether two systems' error rates on the same utterances differ (drawn as for our intervals).

    Raises:
        SslbenchError: they were scored on different references.
    """
    same = [(a.id, a.reference) for a in ours.utterances] == [(b.id, b.reference) for b in theirs.utterances]
    if not same:
        raise SslbenchError("score: the two systems were scored on different references")
    return paired_test(
        [u.words.errors for u in ours.utterances],
        [u.words.errors for u in theirs.utterances],
        [u.words.ref for u in ours.utterances],
        ours.groups(),
        seed=ours.seed,
    )
