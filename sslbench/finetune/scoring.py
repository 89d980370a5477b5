"""Word and character error rates with counts, intervals and an aligned listing of the errors."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sslbench.errors import SslbenchError, did_you_mean
from sslbench.finetune.transcripts import Transcript
from sslbench.report.schema import Metric
from sslbench.report.stats import bootstrap_ratio

EPS = "*"


def _raw(text: str) -> str:
    return text


def _upper(text: str) -> str:
    return unicodedata.normalize("NFKC", text).upper()


def _words(text: str) -> str:
    kept = (c if c.isalnum() or c == "'" or unicodedata.combining(c) else " " for c in _upper(text))
    return "".join(kept)


NORMALISERS: dict[str, Callable[[str], str]] = {"raw": _raw, "upper": _upper, "words": _words}
"""`raw`: as written. `upper`: NFKC and upper case. `words`: that, and punctuation but the apostrophe becomes
a space. White space separates words in all of them."""


@dataclass(frozen=True)
class Counts:
    """Edits that turn a reference into a hypothesis."""

    sub: int = 0
    deleted: int = 0
    ins: int = 0
    ref: int = 0

    @property
    def errors(self) -> int:
        """All edits."""
        return self.sub + self.deleted + self.ins

    @property
    def rate(self) -> float:
        """Errors per reference token. Raises `SslbenchError` when the references hold none."""
        if self.ref == 0:
            raise SslbenchError("score: all references are empty, so there is no error rate")
        return self.errors / self.ref

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.sub + other.sub, self.deleted + other.deleted, self.ins + other.ins, self.ref + other.ref
        )


def count_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """Levenshtein edits with equal costs (as jiwer counts), by kaldialign."""
    import kaldialign

    found = kaldialign.edit_distance(list(reference), list(hypothesis))
    return Counts(int(found["sub"]), int(found["del"]), int(found["ins"]), len(reference))


@dataclass(frozen=True)
class Utterance:
    """One scored utterance."""

    id: str
    speaker: str | None
    reference: list[str]
    hypothesis: list[str]
    words: Counts
    characters: Counts


@dataclass
class Score:
    """A scored set."""

    utterances: list[Utterance]
    normaliser: str
    missing: list[str] = field(default_factory=list)
    """Ids without a hypothesis; each counts as if nothing had been recognised."""

    def total(self, level: str) -> Counts:
        """Pooled counts of `words` or `characters`."""
        total = Counts()
        for utterance in self.utterances:
            total += getattr(utterance, level)
        return total

    def groups(self) -> list[str] | None:
        """The speaker of each utterance; None unless all are known."""
        speakers = [utterance.speaker for utterance in self.utterances]
        return None if None in speakers else [str(speaker) for speaker in speakers]

    def metric(self, level: str, seed: int = 0) -> Metric:
        """The error rate in percent with its 95 % interval over speakers, or utterances when unknown."""
        counts = [getattr(utterance, level) for utterance in self.utterances]
        value = 100 * self.total(level).rate
        low, high = bootstrap_ratio(
            [count.errors for count in counts], [count.ref for count in counts], self.groups(), seed=seed
        )
        return Metric(
            value=value, unit="%", higher_is_better=False, low=100 * low, high=100 * high, n=len(counts)
        )


def score(
    references: Mapping[str, Transcript], hypotheses: Mapping[str, Transcript], normaliser: str = "upper"
) -> Score:
    """Compare hypotheses with references.

    Args:
        references: what was said.
        hypotheses: what was recognised, by the same ids; a missing one counts as empty.
        normaliser: a name in `NORMALISERS`, applied to both sides.

    Raises:
        SslbenchError: unknown normaliser, or hypotheses of utterances that are not in the reference.
    """
    if normaliser not in NORMALISERS:
        raise SslbenchError(f"score: no normaliser {normaliser!r}; {did_you_mean(normaliser, NORMALISERS)}")
    strange = [identifier for identifier in hypotheses if identifier not in references]
    if strange:
        raise SslbenchError(
            f"score: {len(strange)} hypotheses have no reference, first {strange[0]!r}; is it the right file?"
        )
    scored = Score([], normaliser, [i for i in references if i not in hypotheses])
    for identifier, reference in references.items():
        found = hypotheses.get(identifier)
        said = NORMALISERS[normaliser](reference.text).split()
        heard = NORMALISERS[normaliser](found.text).split() if found else []
        words = count_edits(said, heard)
        characters = count_edits(" ".join(said), " ".join(heard))
        scored.utterances.append(Utterance(identifier, reference.speaker, said, heard, words, characters))
    return scored


def aligned(utterance: Utterance) -> str:
    """Reference and hypothesis one above the other; errors in upper case are marked S, D or I below."""
    import kaldialign

    pairs = kaldialign.align(utterance.reference, utterance.hypothesis, EPS)
    rows: list[list[str]] = [["REF:"], ["HYP:"], ["    "]]
    for said, heard in pairs:
        mark = "" if said == heard else "I" if said == EPS else "D" if heard == EPS else "S"
        width = max(len(said), len(heard))
        for row, word in zip(rows, (said, heard, mark), strict=True):
            row.append(word.ljust(width))
    counts = utterance.words
    head = f"{utterance.id}  {counts.errors} errors in {counts.ref} words"
    return "\n".join([head, *(" ".join(row).rstrip() for row in rows)])


def listing(scored: Score, worst: int | None = None) -> str:
    """The summary, the speakers, and the utterances with errors aligned, worst first."""
    order = sorted(scored.utterances, key=lambda utterance: -utterance.words.errors)
    wrong = [utterance for utterance in order if utterance.words.errors]
    parts = [summary(scored), "", *_speaker_lines(scored), "", "Utterances with errors, worst first", ""]
    return "\n".join([*parts, *(aligned(utterance) + "\n" for utterance in wrong[:worst])]) + "\n"


def summary(scored: Score) -> str:
    """Rates, intervals and counts in a few lines."""
    lines = []
    for name, level in (("WER", "words"), ("CER", "characters")):
        counts, metric = scored.total(level), scored.metric(level)
        kinds = f"{counts.sub} sub, {counts.deleted} del, {counts.ins} ins"
        lines.append(
            f"{name} {metric.value:.2f} %  [{metric.low:.2f}, {metric.high:.2f}]"
            f"  {counts.errors} / {counts.ref} {level}  ({kinds})"
        )
    over = "speakers" if scored.groups() else "utterances"
    lines.append(
        f"{len(scored.utterances)} utterances, 95 % intervals over {over}, normaliser '{scored.normaliser}'"
    )
    if scored.missing:
        lines.append(
            f"{len(scored.missing)} utterances without a hypothesis count as empty, first {scored.missing[0]}"
        )
    return "\n".join(lines)


def _speaker_lines(scored: Score) -> list[str]:
    groups = scored.groups()
    if groups is None:
        return ["Speakers: not known"]
    totals: dict[str, Counts] = {}
    for speaker, utterance in zip(groups, scored.utterances, strict=True):
        totals[speaker] = totals.get(speaker, Counts()) + utterance.words
    order = sorted(totals.items(), key=lambda item: -item[1].errors / max(item[1].ref, 1))
    return ["Speakers, worst first", *(f"{s:20} {c.errors:6} / {c.ref} words" for s, c in order)]
