"""Emotion recognition (ER): four emotions, five folds, mean accuracy."""

from __future__ import annotations

from pathlib import Path

from lhotse.cut import Cut

from sslbench.downstream.er.data import emodb_folds, emotion_of, iemocap_folds, labelled_folds
from sslbench.probe.files import is_prepared, speaker
from sslbench.probe.task import Example, Parts
from sslbench.probe.utterance import UtteranceTask

LABELS = ["neu", "hap", "ang", "sad"]


class Task(UtteranceTask):
    """ER as SUPERB defines it: five runs, one per held-out session, scored by their mean."""

    name = "er"
    config_path = Path(__file__).with_name("config.yaml")

    def prepare(self, root: Path) -> Parts:
        return self.folds(root)["fold1"]

    def folds(self, root: Path) -> dict[str, Parts]:
        if is_prepared(root):
            found = labelled_folds(root, self.settings["kinds"])
        else:
            found = emodb_folds(root) or iemocap_folds(root)
        self.slots = [LABELS]
        return {
            name: {part: [_example(cut) for cut in cuts] for part, cuts in parts.items()}
            for name, parts in found.items()
        }


def _example(cut: Cut) -> Example:
    emotion = emotion_of(cut)
    return Example(cut, (LABELS.index(emotion),), emotion, speaker(cut))
