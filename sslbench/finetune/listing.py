"""Scores for people: a summary, breakdowns by speaker and length, and every error aligned."""

from __future__ import annotations

from collections.abc import Iterable

from sslbench.finetune.counts import Counts
from sslbench.finetune.scoring import Score, Utterance
from sslbench.report.stats import PairedTest

EPS = "*"
LENGTHS = ((0, 0), (1, 5), (6, 10), (11, 20), (21, 40), (41, 10**9))  # reference words, both ends included


def aligned(utterance: Utterance, counting: str = "levenshtein") -> str:
    """Reference and hypothesis one above the other; errors are marked S, D or I below."""
    import kaldialign

    pairs = kaldialign.align(utterance.reference, utterance.hypothesis, EPS, counting == "sclite")
    rows: list[list[str]] = [["REF:"], ["HYP:"], ["    "]]
    for said, heard in pairs:
        mark = "" if said == heard else "I" if said == EPS else "D" if heard == EPS else "S"
        width = max(len(said), len(heard))
        for row, word in zip(rows, (said, heard, mark), strict=True):
            row.append(word.ljust(width))
    counts = utterance.words
    head = f"{utterance.id}  {counts.errors} errors in {counts.ref} words"
    return "\n".join([head, *(" ".join(row).rstrip() for row in rows)])


def listing(scored: Score) -> str:
    """The summary, the breakdowns, and the utterances with errors aligned, worst first."""
    order = sorted(scored.utterances, key=lambda utterance: -utterance.words.errors)
    wrong = [utterance for utterance in order if utterance.words.errors]
    parts = [summary(scored), "", *speaker_lines(scored), "", *length_lines(scored), ""]
    parts += ["Utterances with errors, worst first", ""]
    return "\n".join([*parts, *(aligned(one, scored.counting) + "\n" for one in wrong)]) + "\n"


def summary(scored: Score) -> str:
    """Rates, intervals and counts in a few lines."""
    lines = []
    for name, level in scored.rates().items():
        counts, metric = scored.total(level), scored.metric(level)
        kinds = f"{counts.sub} sub, {counts.deleted} del, {counts.ins} ins"
        units = "phones" if scored.unit == "phone" else level
        lines.append(
            f"{name.upper()} {metric.value:.2f} %  [{metric.low:.2f}, {metric.high:.2f}]"
            f"  {counts.errors} / {counts.ref} {units}  ({kinds})"
        )
    wrong = sum(utterance.words.errors > 0 for utterance in scored.utterances)
    over = "speakers" if len(set(scored.groups() or [])) > 1 else "utterances"
    lines.append(
        f"{len(scored.utterances)} utterances, {wrong} with errors; 95 % intervals over {over}, "
        f"normaliser '{scored.normaliser}', counts '{scored.counting}'"
    )
    return "\n".join([*lines, *missing(scored)])


def missing(scored: Score) -> list[str]:
    """The line about utterances without a hypothesis, where there are any."""
    lost = scored.missing
    return [f"{len(lost)} utterances without a hypothesis count as empty, first {lost[0]}"] if lost else []


def difference(test: PairedTest, ours: str, theirs: str) -> str:
    """One line about two systems."""
    low, high, gap = (100 * value for value in (test.low, test.high, test.difference))
    return f"{ours} - {theirs}: {gap:+.2f} points  [{low:+.2f}, {high:+.2f}], p = {test.p_value:.4f} (paired)"


def speaker_lines(scored: Score) -> list[str]:
    """Errors of each speaker, worst first."""
    groups = scored.groups()
    if groups is None:
        return ["Speakers: not known"]
    totals = _totals(zip(groups, scored.utterances, strict=True))
    order = sorted(totals.items(), key=lambda item: -item[1].errors / max(item[1].ref, 1))
    return ["Speakers, worst first", *(_line(speaker, counts) for speaker, counts in order)]


def length_lines(scored: Score) -> list[str]:
    """Errors of utterances by their number of reference words."""
    totals = _totals((_bin(len(utterance.reference)), utterance) for utterance in scored.utterances)
    kept = [_name(*ends) for ends in LENGTHS if _name(*ends) in totals]
    return ["Reference length", *(_line(name, totals[name]) for name in kept)]


def _totals(pairs: Iterable[tuple[str, Utterance]]) -> dict[str, Counts]:
    totals: dict[str, Counts] = {}
    for name, utterance in pairs:
        totals[name] = totals.get(name, Counts()) + utterance.words
    return totals


def _bin(length: int) -> str:
    return next(_name(low, high) for low, high in LENGTHS if low <= length <= high)


def _name(low: int, high: int) -> str:
    return f"over {low - 1}" if high == LENGTHS[-1][1] else str(low) if low == high else f"{low}-{high}"


def _line(name: str, counts: Counts) -> str:
    rate = f"{100 * counts.rate:6.2f} %" if counts.ref else "       -"
    kinds = f"{counts.sub} sub, {counts.deleted} del, {counts.ins} ins"
    return f"{name:20} {rate}  {counts.errors:6} / {counts.ref:6}  ({kinds})"
