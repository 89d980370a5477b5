"""SUPERB's speech recognition: CTC characters over a recurrent head on frozen features, word error rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.probe.ctc import best_path, ctc_loss, error_rate
from sslbench.probe.files import speaker
from sslbench.probe.recurrent import RecurrentHead
from sslbench.probe.splits import open_parts, text_of
from sslbench.probe.task import Example, Parts, Prediction, ProbeTask
from sslbench.report.schema import Metric

# s3prl/downstream/asr/char.dict after fairseq's four special symbols
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
LETTERS = list("|ETAOINHSRDLUMCWFGYPBVK'XJQZ")
BLANK, END, UNKNOWN = 0, 2, 3


class Task(ProbeTask):
    """ASR as SUPERB defines it, without a language model; s3prl's quirks are kept (see README.md)."""

    name = "superb_asr"
    headline = "wer"
    higher_is_better = False
    config_path = Path(__file__).with_name("config.yaml")

    def __init__(self, tier: str) -> None:
        """Read the protocol of a tier."""
        super().__init__(tier)
        self.labels = SPECIAL + LETTERS
        self.dim = int(self.settings["head_dim"][tier])
        self.augment = bool(self.settings["augment"][tier])

    def prepare(self, root: Path) -> Parts:
        parts = open_parts(root, self.settings)
        parts["train"] = [cut for cut in parts["train"] if text_of(cut)]
        for part, cuts in parts.items():
            if not any(text_of(cut) for cut in cuts):
                raise SslbenchError(f"{root}: no clip of {part} ({self.settings[part]}) has a transcript")
        return {
            part: [Example(cut, self.encode(text_of(cut)), text_of(cut), speaker(cut)) for cut in cuts]
            for part, cuts in parts.items()
        }

    def encode(self, text: str) -> tuple[int, ...]:
        """Letters, a bar after every word, and the end symbol; other characters are unknown."""
        index = {label: number for number, label in enumerate(self.labels)}
        spelled = text.upper().replace(" ", "|") + "|"
        return (*(index.get(letter, UNKNOWN) for letter in spelled), END)

    def head(self, input_dim: int) -> nn.Module:
        return RecurrentHead(input_dim, len(self.labels), self.dim, augment=self.augment)

    def batches(self, examples: Sequence[Example], seed: int) -> Iterator[list[int]]:
        """Fixed groups of similar duration in random order; a rest of one clip is left out."""
        order = sorted(range(len(examples)), key=lambda i: (-examples[i].cut.duration, i))
        size = self.protocol.batch_clips
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        kept = [group for group in groups if len(group) > 1] or groups
        rng = np.random.default_rng(seed)
        while True:
            yield from (kept[int(i)] for i in rng.permutation(len(kept)))

    def loss(self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[Any]) -> torch.Tensor:
        return ctc_loss(logits, lens, targets, BLANK)

    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[Any]:
        return [self.spell(path) for path in best_path(logits, lens, (BLANK,))]

    def spell(self, path: Sequence[int]) -> str:
        """Labels to words, without the end symbol and with `<unk>` for unknown letters, as in fairseq."""
        letters = "".join("" if label == END else self.labels[label] for label in path)
        return " ".join(letters.replace("|", " ").split())

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        return error_rate("wer", predictions) | error_rate("cer", predictions, list)

    def facts(self) -> Mapping[str, Any]:
        return {"labels": self.labels, "head_dim": self.dim, "augment": self.augment}
