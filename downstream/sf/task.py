"""Slot filling (SF): characters with slot marks by CTC; slot-type F1 and slot-value CER."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslbench.downstream.sf.data import Sentence, is_snips, read_manifests, read_snips
from sslbench.downstream.sf.metric import slot_type_f1, slot_value_errors
from sslbench.downstream.sf.text import BLANK, END, SlotVocab
from sslbench.probe.ctc import best_path, ctc_loss, window_batches
from sslbench.probe.files import speaker
from sslbench.probe.metric import percent
from sslbench.probe.recurrent import RecurrentHead
from sslbench.probe.task import Example, Parts, Prediction, ProbeTask
from sslbench.report.schema import Metric


class Task(ProbeTask):
    """SF as SUPERB defines it; s3prl's quirks are kept (see README.md)."""

    name = "sf"
    headline = "slot_type_f1"
    higher_is_better = True
    config_path = Path(__file__).with_name("config.yaml")

    def __init__(self, tier: str) -> None:
        """Read the protocol of a tier."""
        super().__init__(tier)
        self.vocab = SlotVocab([])
        self.dim = int(self.settings["head_dim"][tier])
        self.augment = bool(self.settings["augment"][tier])

    def prepare(self, root: Path) -> Parts:
        official = is_snips(root)
        parts, slots = (
            read_snips(root, self.settings["speakers"]) if official else read_manifests(root, self.settings)
        )
        self.vocab = SlotVocab(slots)
        self.labels = self.vocab.labels
        made = {part: [self._example(s) for s in sentences] for part, sentences in parts.items()}
        made["train"] = [example for example in made["train"] if example.target]
        return made

    def _example(self, sentence: Sentence) -> Example:
        target = self.vocab.encode(sentence.words, sentence.slots)
        return Example(sentence.cut, target, self.vocab.decode(target), speaker(sentence.cut))

    def head(self, input_dim: int) -> nn.Module:
        return RecurrentHead(input_dim, len(self.vocab), self.dim, augment=self.augment)

    def batches(self, examples: Sequence[Example], seed: int) -> Iterator[list[int]]:
        sizes = [len(example.target) for example in examples]
        return window_batches(sizes, self.protocol.batch_clips, 1, seed)

    def loss(self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[Any]) -> torch.Tensor:
        return ctc_loss(logits, lens, targets, BLANK)

    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[Any]:
        return [self.vocab.decode(path) for path in best_path(logits, lens, (BLANK, END))]

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        speakers = [row.speaker for row in predictions]
        f1 = [slot_type_f1(row.hyp, row.ref) for row in predictions]
        values = [slot_value_errors(row.hyp, row.ref) for row in predictions]
        errors = [float(v.errors) for v in values]
        lengths = [float(v.characters) for v in values]
        return percent("slot_type_f1", f1, [1.0] * len(f1), speakers, higher_is_better=True) | percent(
            "slot_value_cer", errors, lengths, speakers
        )

    def facts(self) -> Mapping[str, Any]:
        return {"labels": self.labels, "head_dim": self.dim, "augment": self.augment}
