"""Speaker identification (SID): mean over time, linear classifier, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from lhotse.cut import Cut
from torch import nn
from torch.nn import functional as F

from sslbench.downstream.sid.data import pooled_cuts, split_speakers
from sslbench.probe.task import Example, Prediction, ProbeTask
from sslbench.report.schema import Metric
from sslbench.report.stats import bootstrap_ratio

PROJECTED = 256


class MeanHead(nn.Module):
    """Linear, mean over the valid frames, linear: s3prl's `projector` and `UtteranceLevel`."""

    def __init__(self, input_dim: int, classes: int) -> None:
        """Map `input_dim` features to `classes` logits per clip."""
        super().__init__()
        self.projector = nn.Linear(input_dim, PROJECTED)
        self.linear = nn.Linear(PROJECTED, classes)

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, F, D) and (B,) frame counts → (B, classes)."""
        projected = self.projector(features)
        valid = torch.arange(projected.shape[1], device=lens.device) < lens[:, None]  # (B, F)
        mean = projected.masked_fill(~valid[..., None], 0.0).sum(dim=1) / lens[:, None]
        logits: torch.Tensor = self.linear(mean)
        return logits


class Task(ProbeTask):
    """SID as SUPERB defines it, on any corpus with speakers."""

    name = "sid"
    headline = "acc"
    higher_is_better = True
    pooled = True
    config_path = Path(__file__).with_name("config.yaml")

    def prepare(self, root: Path) -> dict[str, list[Example]]:
        parts = split_speakers(pooled_cuts(root, self.settings["pool"]))
        self.labels = sorted({_speaker(cut) for cut in parts["train"]})
        index = {label: number for number, label in enumerate(self.labels)}
        return {
            part: [Example(cut, (index[_speaker(cut)],), _speaker(cut), _speaker(cut)) for cut in cuts]
            for part, cuts in parts.items()
        }

    def head(self, input_dim: int) -> nn.Module:
        return MeanHead(input_dim, len(self.labels))

    def loss(
        self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[tuple[int, ...]]
    ) -> torch.Tensor:
        return F.cross_entropy(logits, torch.tensor([target[0] for target in targets], device=logits.device))

    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[str]:
        return [self.labels[i] for i in logits.argmax(dim=-1).tolist()]

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        right = [float(row.hyp == row.ref) for row in predictions]
        low, high = bootstrap_ratio(right, [1.0] * len(right), [row.speaker for row in predictions])
        value = 100 * sum(right) / len(right)
        return {
            "acc": Metric(
                value=value, unit="%", higher_is_better=True, low=100 * low, high=100 * high, n=len(right)
            )
        }


def _speaker(cut: Cut) -> str:
    return str(cut.supervisions[0].speaker)
