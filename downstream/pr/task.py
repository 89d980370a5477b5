"""Phone recognition (PR): CTC over frozen features, phone error rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import Cut
from torch import nn
from torch.nn import functional as F

from sslbench.downstream.pr.data import open_split, phones_of, read_lexicon
from sslbench.errors import SslbenchError
from sslbench.probe.task import Example, Prediction, ProbeTask
from sslbench.report.schema import Metric
from sslbench.report.stats import bootstrap_ratio

BLANK, END, UNKNOWN = 0, 1, 2
SPECIAL = ["<pad>", "<eos>", "<unk>"]
PROJECTED = 256


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

    def prepare(self, root: Path) -> dict[str, list[Example]]:
        lexicon = read_lexicon(root)
        starts = {"train": ("train",), "dev": ("dev", "valid"), "test": ("test",)}
        phones: dict[str, list[tuple[Cut, list[str]]]] = {}
        for part, start in starts.items():
            cuts = _of_kinds(open_split(root, self.settings[part], start), self.settings.get("kinds", []))
            spoken = [(cut, phones_of(cut, lexicon)) for cut in cuts]
            phones[part] = [(cut, sequence) for cut, sequence in spoken if sequence]
            if not phones[part]:
                raise SslbenchError(f"{root}: no clip of {part} ({self.settings[part]}) has phones")
        self.labels = SPECIAL + sorted({phone for _, sequence in phones["train"] for phone in sequence})
        return {
            part: [self._example(cut, sequence) for cut, sequence in pairs] for part, pairs in phones.items()
        }

    def _example(self, cut: Cut, sequence: list[str]) -> Example:
        index = {label: number for number, label in enumerate(self.labels)}
        # the end symbol is part of the target, as in s3prl's text encoder
        target = (*(index.get(phone, UNKNOWN) for phone in sequence), END)
        speaker = str(cut.supervisions[0].speaker or cut.id)
        return Example(cut, target, " ".join(sequence), speaker)

    def head(self, input_dim: int) -> nn.Module:
        return FrameHead(input_dim, len(self.labels))

    def loss(
        self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[tuple[int, ...]]
    ) -> torch.Tensor:
        flat = torch.tensor([label for target in targets for label in target], device=logits.device)
        target_lens = torch.tensor([len(target) for target in targets])
        # per clip divided by its target's length, then averaged; clips too short for their phones count 0
        return F.ctc_loss(
            logits.log_softmax(dim=-1).transpose(0, 1),
            flat,
            lens,
            target_lens,
            blank=BLANK,
            zero_infinity=True,
        )

    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[str]:
        best = logits.argmax(dim=-1)  # (B, F)
        answers = []
        for path, length in zip(best, lens.tolist(), strict=True):
            kept = path[:length].unique_consecutive().tolist()
            answers.append(" ".join(self.labels[i] for i in kept if i not in (BLANK, END)))
        return answers

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        from kaldialign import edit_distance

        counts: list[dict[str, Any]] = [
            edit_distance(row.ref.split(), row.hyp.split()) for row in predictions
        ]
        errors = [float(count["total"]) for count in counts]
        lengths = [float(len(row.ref.split())) for row in predictions]
        low, high = bootstrap_ratio(errors, lengths, [row.speaker for row in predictions])
        value = 100 * sum(errors) / sum(lengths)
        return {
            "per": Metric(
                value=value,
                unit="%",
                higher_is_better=False,
                low=100 * low,
                high=100 * high,
                n=len(predictions),
            )
        }


def _of_kinds(cuts: list[Cut], kinds: list[str]) -> list[Cut]:
    """Cuts of the wanted kinds, where the corpus marks kinds at all."""
    marked = [cut for cut in cuts if _kind(cut) is not None]
    return [cut for cut in cuts if _kind(cut) in kinds] if marked and kinds else cuts


def _kind(cut: Cut) -> Any:
    own = (cut.custom or {}).get("kind")
    return own if own is not None else (cut.supervisions[0].custom or {}).get("kind")
