"""Keyword spotting (KS): twelve classes of one-second clips, accuracy."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from lhotse.cut import Cut

from sslbench.downstream.ks.data import CLASSES, UNKNOWN, official_parts
from sslbench.probe.batching import weighted_batches
from sslbench.probe.files import is_prepared, label, labelled_parts, speaker
from sslbench.probe.task import Example, Parts, Prediction
from sslbench.probe.utterance import UtteranceTask

GAIN_DB = -3.0


class Task(UtteranceTask):
    """KS as SUPERB defines it; the protocol's quirks are kept (see README.md)."""

    name = "ks"
    config_path = Path(__file__).with_name("config.yaml")

    def prepare(self, root: Path) -> Parts:
        if is_prepared(root):
            parts = labelled_parts(root, self.settings, ["keyword"], "ks", "Speech Commands")
        else:
            parts = self._official(root)
        self.slots = [CLASSES]
        examples: Parts = {}
        for part, cuts in parts.items():
            words = [str(label(cut, "keyword")) for cut in cuts]
            words = [word if word in CLASSES else UNKNOWN for word in words]
            examples[part] = [
                Example(cut, (CLASSES.index(word),), word, speaker(cut))
                for cut, word in zip(cuts, words, strict=True)
            ]
        return examples

    def _official(self, root: Path) -> dict[str, list[Cut]]:
        folder = self.settings["test_folder"]
        held_out = self.tier != "full" and not (root / folder).is_dir()
        parts = official_parts(root, self.settings, int(self.settings["silence_seed"]), held_out)
        if held_out:
            self.settings["test_name"] = "held-out speakers"
            print(
                f"ks: {root} lacks {folder}; tier {self.tier} tests on {len(parts['test'])} clips of "
                "held-out speakers of the training archive",
                file=sys.stderr,
            )
        return parts

    def waveform(self, wav: torch.Tensor) -> torch.Tensor:
        return wav * 10 ** (GAIN_DB / 20)

    def batches(self, examples: Sequence[Example], seed: int) -> Iterator[list[int]]:
        """Every class equally often, drawn with replacement."""
        counts = Counter(example.target for example in examples)
        weights = [1.0 / counts[example.target] for example in examples]
        return weighted_batches(weights, self.protocol.batch_clips, seed)

    def selection(self, predictions: Sequence[Prediction]) -> float:
        """Accuracy averaged over classes: what drawings of dev by class, of which s3prl keeps one, have on
        average."""
        right, total = Counter[str](), Counter[str]()
        for row in predictions:
            total[row.ref] += 1
            right[row.ref] += row.hyp == row.ref
        return 100 * sum(right[word] / total[word] for word in total) / len(total)
