"""Slots in a transcript, slot-type F1 and slot-value CER.

A transcript marks a slot as `B-city LONDON E-city`. The rules are those of s3prl's `slot_type_f1` and
`slot_value_cer` (s3prl/downstream/ctc/metric.py), rewritten.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Slots = dict[str, list[str]]

_SLOT = re.compile(r"B-(\S+) (.+?) E-\1")


def read_slots(text: str, heard: bool) -> Slots:
    """Slot types with their values in order.

    Args:
        text: a transcript with marks.
        heard: of a recognizer, which may leave marks inside a value; those are taken out (in references
            they are not: s3prl's rule).
    """
    found: Slots = {}
    for slot, value in _SLOT.findall(re.sub(r" +", " ", text)):
        found.setdefault(slot, []).append(without_marks(value) if heard else value)
    return found


def without_marks(text: str) -> str:
    """The words alone: marks go with the space on their inner side."""
    return re.sub(r" E-(\S+)", "", re.sub(r"B-(\S+) ", "", text))


def slot_type_f1(hyp: str, ref: str) -> float:
    """F1 of the sets of slot types of one utterance; 1 when neither has any."""
    heard, said = set(read_slots(hyp, True)), set(read_slots(ref, False))
    if not heard or not said:
        return float(heard == said)
    common = len(heard & said)
    precision, recall = common / len(heard), common / len(said)
    return 2 * precision * recall / (precision + recall) if common else 0.0


@dataclass(frozen=True)
class ValueErrors:
    """Character errors in the slot values of one utterance."""

    errors: int
    """Edits."""
    characters: int
    """Length of the reference values."""


def slot_value_errors(hyp: str, ref: str) -> ValueErrors:
    """Each reference value against the most alike value heard for its type, or against nothing.

    A heard value may answer for several references, and values of types that were not said cost nothing.
    """
    heard = read_slots(hyp, True)
    errors = characters = 0
    for slot, values in read_slots(ref, False).items():
        for value in values:
            characters += len(value)
            errors += min((edits(value, other) for other in heard.get(slot, [])), default=len(value))
    return ValueErrors(errors, characters)


def edits(ref: str, hyp: str) -> int:
    """Character edit distance."""
    from kaldialign import edit_distance

    return int(edit_distance(list(ref), list(hyp))["total"])
