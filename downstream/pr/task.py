"""Phone recognition (PR): CTC over frozen features, phone error rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslbench.data.phones import phones_of
from sslbench.downstream.pr.data import (
    LEXICONS,
    corpus_lexicon,
    has_stress,
    lexicon_files,
    official_phones,
)
from sslbench.errors import SslbenchError
from sslbench.probe.ctc import best_path, ctc_loss, error_rate, window_batches
from sslbench.probe.files import speaker
from sslbench.probe.splits import librispeech_home, open_parts
from sslbench.probe.task import Example, Parts, Prediction, ProbeTask
from sslbench.report.schema import Metric

BLANK, END, UNKNOWN = 0, 1, 2
SPECIAL = ["<pad>", "<eos>", "<unk>"]
PROJECTED = 256
ACCUMULATED = 2


class FrameHead(nn.Module):
    """Two linear maps with nothing between: s3prl's `projector` and `FrameLevel` without hidden layers."""

    def __init__(self, input_dim: int, classes: int) -> None:
        """Map `input_dim` features to `classes` logits."""
        super().__init__()
        self.projector = nn.Linear(input_dim, PROJECTED)
        self.linear = nn.Linear(PROJECTED, classes)

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, F, D) → (B, F, classes)."""
        logits: torch.Tensor = self.linear(self.projector(features))
        return logits


class Task(ProbeTask):
    """PR as SUPERB defines it; s3prl's quirks are kept (see README.md)."""

    name = "pr"
    headline = "per"
    higher_is_better = False
    config_path = Path(__file__).with_name("config.yaml")

    def prepare(self, root: Path) -> Parts:
        lexicon = corpus_lexicon(root)
        spoken = {
            part: [(cut, phones_of(cut, lexicon, stress=True)) for cut in cuts]
            for part, cuts in open_parts(root, self.settings).items()
        }
        # nothing is learned from a clip without phones; in a test it still costs its insertions
        spoken["train"] = [(cut, sequence) for cut, sequence in spoken["train"] if sequence]
        for part, pairs in spoken.items():
            if not any(sequence for _, sequence in pairs):
                raise SslbenchError(f"{root}: no clip of {part} ({self.settings[part]}) has phones")
        heard = {phone for _, sequence in spoken["train"] for phone in sequence}
        official = official_phones() if has_stress(lexicon) else []
        self.labels = SPECIAL + official + sorted(heard - set(official))
        if self.tier == "full" and self.labels != SPECIAL + official_phones():
            raise SslbenchError(
                f"{root}: its {len(self.labels) - len(SPECIAL)} phones are not SUPERB's 71, as tier 'full' "
                f"needs; put s3prl's {LEXICONS[1]} and {LEXICONS[2]} there, in place "
                "of alignments or another lexicon, or use --tier short"
            )
        return {
            part: [self._example(cut, sequence) for cut, sequence in pairs] for part, pairs in spoken.items()
        }

    def _example(self, cut: Any, sequence: list[str]) -> Example:
        index = {label: number for number, label in enumerate(self.labels)}
        # the end symbol is part of the target, as in s3prl's text encoder
        target = (*(index.get(phone, UNKNOWN) for phone in sequence), END)
        return Example(cut, target, " ".join(sequence), speaker(cut))

    def s3prl_values(self, root: Path) -> Mapping[str, Any]:
        home, lexica = librispeech_home(root), lexicon_files(root)
        if home is None or not lexica:
            raise SslbenchError(
                f"pr: {root}: s3prl's runner reads LibriSpeech's own folders and a lexicon beside them "
                f"({' or '.join(LEXICONS)}); see downstream/pr/README.md, or leave --engine out"
            )
        if self.labels and self.labels != SPECIAL + official_phones():
            raise SslbenchError(
                f"pr: {root}: s3prl's runner knows phones with stress marks only, as in its own lexica "
                f"({', '.join(LEXICONS[1:])}); put those there, or leave --engine out"
            )
        return {"home": str(home), "lexica": [str(path) for path in lexica]}

    def head(self, input_dim: int) -> nn.Module:
        return FrameHead(input_dim, len(self.labels))

    def batches(self, examples: Sequence[Example], seed: int) -> Iterator[list[int]]:
        sizes = [len(example.target) for example in examples]
        window = max(1, self.protocol.batch_clips // ACCUMULATED)
        return window_batches(sizes, window, ACCUMULATED, seed)

    def loss(self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[Any]) -> torch.Tensor:
        return ctc_loss(logits, lens, targets, BLANK)

    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[Any]:
        paths = best_path(logits, lens, (BLANK, END))
        return [" ".join(self.labels[i] for i in path) for path in paths]

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        return error_rate("per", predictions)
