"""Characters and slot marks as CTC labels: the scheme of s3prl's `CharacterTextSlotEncoder`
(s3prl/downstream/ctc/text.py)."""

from __future__ import annotations

from collections.abc import Sequence

BLANK, END, UNKNOWN = 0, 1, 2
SPECIAL = ["<pad>", "<eos>", "<unk>"]
CHARACTERS = list(" ABCDEFGHIJKLMNOPQRSTUVWXYZ'")  # s3prl/downstream/ctc/vocab/character.txt
PUNCTUATION = "?!.,;-"


class SlotVocab:
    """Labels 0 to 2 are special, then characters, then `B-slot` and `E-slot` of every slot."""

    def __init__(self, slots: Sequence[str]) -> None:
        """Take slot names in their order."""
        self.labels = SPECIAL + CHARACTERS + [f"{side}-{slot}" for slot in slots for side in "BE"]
        self._index = {label: number for number, label in enumerate(self.labels)}
        self._first_mark = len(SPECIAL) + len(CHARACTERS)

    def __len__(self) -> int:
        return len(self.labels)

    def encode(self, words: Sequence[str], slots: Sequence[str]) -> tuple[int, ...]:
        """Spelled words with marks around each run of one slot; the end symbol replaces the last space.

        A word of punctuation is left out with its marks and, where it is the last, with the end symbol.
        """
        labels: list[int] = []
        for i, (word, slot) in enumerate(zip(words, slots, strict=True)):
            if word in PUNCTUATION:  # also the empty word
                continue
            last = i == len(words) - 1
            if slot != "O" and (i == 0 or slots[i - 1] != slot):
                labels.append(self._index[f"B-{slot}"])
            labels += [self._index.get(c, UNKNOWN) for c in ("AND" if word == "&" else word)]
            if slot != "O" and (last or slots[i + 1] != slot):
                labels.append(self._index[f"E-{slot}"])
            labels.append(END if last else self._index[" "])
        return tuple(labels)

    def decode(self, labels: Sequence[int]) -> str:
        """Text with marks, up to the end symbol; blanks are left out."""
        text = ""
        for label in labels:
            if label == END:
                break
            if label == BLANK:
                continue
            name = self.labels[label]
            mark = label >= self._first_mark
            text += (f"{name} " if name[0] == "B" else f" {name}") if mark else name
        return text
