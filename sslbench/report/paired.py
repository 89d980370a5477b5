"""Is a difference real? Paired bootstrap of two systems on the same utterances, corrected for many pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sslbench.report.predictions import Item, read_items
from sslbench.report.schema import ResultRow
from sslbench.report.stats import mcnemar, paired_test
from sslbench.report.view import TIED, UNTESTED, Column, Summary, System

SIGNIFICANT = 0.05
DRAWS = 5000


@dataclass
class Pair:
    """One comparison: the difference is `system` minus `reference`, in points of the column's unit."""

    column: Column
    reference: str
    system: str
    difference: float
    low: float
    high: float
    p_value: float
    utterances: int
    p_corrected: float = 1.0
    """By Holm's method over all pairs of the same call."""
    p_mcnemar: float | None = None
    """Uncorrected, for answers that are right or wrong; None for word and phone errors."""

    @property
    def shown(self) -> bool:
        """Whether a difference is shown at the 5 % level after correction."""
        return self.p_corrected < SIGNIFICANT

    @property
    def flipped(self) -> Pair:
        """The same comparison with the other system as the reference."""
        return replace(
            self,
            reference=self.system,
            system=self.reference,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
        )

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        what = f"{self.column.title}: {self.system} against {self.reference}"
        interval = f"[{self.low:+.2f}, {self.high:+.2f}]"
        figures = f"{self.difference:+.2f} points {interval}, p {p_text(self.p_corrected)}"
        if self.p_mcnemar is not None:
            figures += f"; uncorrected McNemar p {p_text(self.p_mcnemar)}"
        if not self.shown:
            return f"{what}: no difference shown ({figures})"
        better = (self.difference > 0) == self.column.higher_is_better
        return f"{what}: {'better' if better else 'worse'} ({figures})"


@dataclass
class Comparison:
    """All pairs against a reference, and why some could not be tested."""

    pairs: list[Pair]
    untested: list[str]

    def pair(self, column: Column, one: str, other: str) -> Pair | None:
        """The test of two systems in a score, whichever is the reference; None when there was none."""
        ends = {one, other}
        return next((p for p in self.pairs if p.column == column and {p.reference, p.system} == ends), None)


def p_text(p_value: float) -> str:
    """A p value with sensible digits."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"


class Items:
    """Scored utterances by (system, evaluation), read once."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._known: dict[tuple[str, str], dict[str, Item] | str] = {}

    def of(self, row: ResultRow) -> dict[str, Item] | str:
        """As `read_items`."""
        key = (row.system, row.evaluation)
        if key not in self._known:
            self._known[key] = read_items(row, self.results)
        return self._known[key]


def compare_to(summary: Summary, items: Items, reference: str | None = None) -> Comparison:
    """Compare every system with one reference in every score.

    Args:
        summary: the systems.
        items: their predictions.
        reference: a system's name; None takes the best system of each score, and sets every trained
            system against its untrained twin besides.
    """
    pairs: list[Pair] = []
    untested: list[str] = []
    for column in summary.quality:
        rows = {system.name: system.rows[column.evaluation] for system, _ in summary.measured(column)}
        wanted, problems = _wanted(summary, column, reference)
        untested += problems
        for base, name in wanted:
            found = _pair(column, rows[base], rows[name], items)
            if isinstance(found, Pair):
                pairs.append(found)
            else:
                untested.append(f"{column.title}: {name} against {base}: not tested, {found}")
    holm(pairs)
    return Comparison(pairs, untested)


Names = list[tuple[str, str]]
"""Systems to compare: (reference, system)."""


def _wanted(summary: Summary, column: Column, reference: str | None) -> tuple[Names, list[str]]:
    """The comparisons of one score, and why some cannot be made."""
    names = [system.name for system, _ in summary.measured(column)]
    if reference is not None and reference not in names:
        return [], [f"{column.title}: nothing tested, {reference} has no such score"]
    base = names[0] if reference is None else reference
    wanted = [(base, name) for name in names if name != base]
    if reference is not None:
        return wanted, []
    pairs, problems = twins(summary, column)
    return wanted + [pair for pair in pairs if pair not in wanted and pair[::-1] not in wanted], problems


def twins(summary: Summary, column: Column) -> tuple[Names, list[str]]:
    """(untrained, trained) of one architecture, which tells what pretraining brought, and what is unclear.

    A twin has the same upstream and tier, was measured in the same ways, and has as many parameters where
    both counts are known. A trained system with no such twin, or several, among untrained rows of its
    upstream is paired with none.
    """
    systems = [system for system, _ in summary.measured(column)]
    found: Names = []
    problems = []
    for trained in systems:
        row = trained.rows[column.evaluation]
        rows = {system.name: system.rows[column.evaluation] for system in systems}
        untrained = [
            s for s in systems if (r := rows[s.name]).weights == "random" and r.upstream == row.upstream
        ]
        alike = [system.name for system in untrained if _alike(trained, system, column)]
        if row.weights != "trained" or not untrained:
            continue
        if len(alike) == 1:
            found.append((alike[0], trained.name))
        else:
            named = ", ".join(sorted(alike or [system.name for system in untrained]))
            why = "more than one may be" if alike else "differs in tier, method or size:"
            problems.append(f"{column.title}: {trained.name} has no clear untrained twin ({why} {named})")
    return found, problems


def _alike(one: System, other: System, column: Column) -> bool:
    """Whether two systems of one upstream can differ in nothing but their weights."""
    for evaluation, name in ((column.evaluation, "params_trainable"), ("profile", "params_total")):
        counts = {_count(system, evaluation, name) for system in (one, other)} - {None}
        if len(counts) > 1:
            return False
    ours, theirs = (system.rows[column.evaluation] for system in (one, other))
    return (ours.tier, ours.methods) == (theirs.tier, theirs.methods)


def _count(system: System, evaluation: str, name: str) -> float | None:
    row = system.rows.get(evaluation)
    if row is None:
        return None
    return row.metrics[name].value if name in row.metrics else row.cost.get(name)


def _pair(column: Column, base: ResultRow, row: ResultRow, items: Items) -> Pair | str:
    ours, theirs = items.of(row), items.of(base)
    if isinstance(ours, str):
        return f"{row.system}: {ours}"
    if isinstance(theirs, str):
        return f"{base.system}: {theirs}"
    return _test(column, base.system, row.system, theirs, ours)


def _test(
    column: Column, base: str, system: str, theirs: Mapping[str, Item], ours: Mapping[str, Item]
) -> Pair | str:
    common = [identifier for identifier in theirs if identifier in ours]
    if len(common) < len(theirs) or len(common) < len(ours):
        return (
            f"they were scored on different utterances ({len(theirs)} and {len(ours)}, {len(common)} shared)"
        )
    if any(_asked_otherwise(theirs[i], ours[i]) for i in common):
        return "their references differ"
    speakers = [theirs[i].speaker for i in common]
    result = paired_test(
        [ours[i].errors for i in common],
        [theirs[i].errors for i in common],
        [theirs[i].length for i in common],
        None if None in speakers else speakers,
        n=DRAWS,
    )
    answers = column.higher_is_better and all(theirs[i].length == 1 for i in common)
    exact = mcnemar([theirs[i].errors > 0 for i in common], [ours[i].errors > 0 for i in common])
    points = (100 * result.difference, 100 * result.low, 100 * result.high)
    return Pair(
        column, base, system, *points, result.p_value, len(common), p_mcnemar=exact if answers else None
    )


def _asked_otherwise(one: Item, other: Item) -> bool:
    """Whether two answers belong to different references, as far as these were written down."""
    known = one.reference and other.reference
    return one.length != other.length or bool(known and one.reference != other.reference)


def mark_against_best(summary: Summary, comparison: Comparison) -> None:
    """Mark the scores that no test tells from the best, and those that were not tested against it."""
    for column in summary.quality:
        (best, _), *others = summary.measured(column)
        for system, _ in others:
            pair = comparison.pair(column, best.name, system.name)
            if pair is None or not pair.shown:
                summary.marks[column.evaluation, system.name] = UNTESTED if pair is None else TIED


def holm(pairs: Sequence[Pair]) -> None:
    """Fill `p_corrected` (Holm, Scand. J. Statist. 6, 1979): controls the chance of any false verdict."""
    highest = 0.0
    for rank, pair in enumerate(sorted(pairs, key=lambda pair: pair.p_value)):
        highest = max(highest, min(1.0, pair.p_value * (len(pairs) - rank)))
        pair.p_corrected = highest
