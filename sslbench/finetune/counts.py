"""Edit counts of one pair: equal costs as jiwer and Kaldi count, or sclite's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sslbench.errors import SslbenchError


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


# sclite aligns at these costs; in a tie it takes the path of fewer errors. Both are one number here:
# cost · _MANY + errors, so that one minimum decides.
_SUB, _GAP, _MANY = 4, 3, 10**6


def count_edits_sclite(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """The counts of NIST's sclite, whose alignment may hold more errors than the shortest one.

    kaldialign's `sclite_mode` has the costs but breaks ties differently (3 of 700 random pairs). No path
    is traced back: cost 4·S + 3·(D + I), the number of errors and the two lengths give S, D and I.
    """
    numbers = {word: number for number, word in enumerate(dict.fromkeys([*reference, *hypothesis]))}
    heard = np.array([numbers[word] for word in hypothesis], dtype=np.int64)
    sub, gap = _SUB * _MANY + 1, _GAP * _MANY + 1
    inserted = gap * np.arange(len(heard) + 1)
    best = inserted.copy()  # (H + 1,): cheapest way to each prefix of the hypothesis
    for word in reference:
        here = best + gap
        here[1:] = np.minimum(here[1:], best[:-1] + np.where(heard == numbers[word], 0, sub))
        best = np.minimum.accumulate(here - inserted) + inserted
    cost, errors = divmod(int(best[-1]), _MANY)
    substituted = cost - _GAP * errors
    gaps, more = errors - substituted, len(reference) - len(hypothesis)
    return Counts(substituted, (gaps + more) // 2, (gaps - more) // 2, len(reference))


COUNTING = {"levenshtein": count_edits, "sclite": count_edits_sclite}
"""Ways to count word errors, by name."""
