"""Intent classification (IC): action, object and location of a command, all three right or wrong together."""

from __future__ import annotations

from pathlib import Path

from lhotse.cut import Cut

from sslbench.downstream.ic.data import SLOTS, official_parts
from sslbench.probe.files import indexed, is_prepared, label, labelled_parts, speaker
from sslbench.probe.task import Example, Parts
from sslbench.probe.utterance import UtteranceTask


class Task(UtteranceTask):
    """IC as SUPERB defines it."""

    name = "ic"
    config_path = Path(__file__).with_name("config.yaml")

    def prepare(self, root: Path) -> Parts:
        if is_prepared(root):
            parts = labelled_parts(root, self.settings, SLOTS, "ic", "Fluent Speech Commands")
        else:
            parts = official_parts(root)
        indices = [indexed(str(label(cut, slot)) for cut in parts["train"]) for slot in SLOTS]
        self.slots = [list(index) for index in indices]

        def example(cut: Cut) -> Example:
            words = [str(label(cut, slot)) for slot in SLOTS]
            # a value that training lacks can't be answered, so it counts as wrong; its index is never used
            target = tuple(index.get(word, 0) for index, word in zip(indices, words, strict=True))
            return Example(cut, target, self.SEPARATOR.join(words), speaker(cut))

        return {part: [example(cut) for cut in cuts] for part, cuts in parts.items()}
