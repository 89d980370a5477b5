"""Speaker diarization (SD): who speaks in each frame of two-speaker recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sslbench.downstream.sd import archive
from sslbench.downstream.sd.answer import MEDIANS, THRESHOLDS, Answer, turns_from, turns_text
from sslbench.downstream.sd.data import Conversation, frame_labels, is_kaldi, read_kaldi, read_manifests
from sslbench.downstream.sd.der import Errors, Turn, errors
from sslbench.downstream.sd.frames import FrameScore, frame_score, pit_loss
from sslbench.errors import SslbenchError
from sslbench.probe.metric import percent
from sslbench.probe.task import Example, Parts, Prediction, ProbeTask
from sslbench.report.schema import Metric

SPEAKERS = 2
CHUNK_FRAMES = 2000
MICRO_BATCH = 8
SPARE_FRAMES = 4  # most that an upstream may lack (s3prl/upstream/interfaces.py tolerates fewer than 5)
COLLAR_S = 0.25


class ChunkedLSTM(nn.Module):
    """One LSTM and a linear map; it begins anew every `CHUNK_FRAMES` (s3prl's chunks).

    An upstream may give fewer frames than a recording has labels. s3prl's expert then repeats the last frame
    of the padded micro-batch, which in evaluation is one recording; here `SPARE_FRAMES` follow that frame.
    """

    def __init__(self, input_dim: int, dim: int) -> None:
        """Map `input_dim` features to a logit per speaker."""
        super().__init__()
        self.rnn = nn.LSTM(input_dim, dim, batch_first=True)
        self.linear = nn.Linear(dim, SPEAKERS)

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, F, D), zero beyond (B,) frame counts → (B, F + SPARE_FRAMES, speakers)."""
        continued = F.pad(features, (0, 0, 0, SPARE_FRAMES))
        size = MICRO_BATCH if self.training else 1
        for start in range(0, len(lens), size):
            own = slice(start, start + size)
            end = int(lens[own].max())
            continued[own, end:] = features[own, end - 1 : end]
        parts = [self.linear(self.rnn(chunk)[0]) for chunk in continued.split(CHUNK_FRAMES, dim=1)]
        return torch.cat(parts, dim=1)


class Task(ProbeTask):
    """SD as SUPERB defines it, with an exact error rate besides s3prl's frame-level one (see README.md)."""

    name = "sd"
    headline = "der"
    higher_is_better = False
    config_path = Path(__file__).with_name("config.yaml")

    def __init__(self, tier: str) -> None:
        """Read the protocol of a tier."""
        super().__init__(tier)
        self.dim = int(self.settings["head_dim"][tier])

    def prepare(self, root: Path) -> Parts:
        parts = read_kaldi(root) if is_kaldi(root) else read_manifests(root, self.settings)
        return {part: [self._example(talk) for talk in talks] for part, talks in parts.items()}

    def _example(self, talk: Conversation) -> Example:
        speakers = {turn.speaker for turn in talk.turns}
        if len(speakers) > SPEAKERS:
            raise SslbenchError(f"{talk.cut.id}: has {len(speakers)} speakers; the task is for {SPEAKERS}")
        turns = [[turn.start, turn.end, turn.speaker] for turn in talk.turns]
        target = {"samples": int(talk.cut.num_samples or 0), "turns": turns}
        return Example(talk.cut, target, turns_text(talk.scored), str(talk.cut.id))

    def s3prl_values(self, root: Path) -> Mapping[str, Any]:
        return {"head_dim": self.dim}

    def head(self, input_dim: int) -> nn.Module:
        return ChunkedLSTM(input_dim, self.dim)

    def loss(self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[Any]) -> torch.Tensor:
        # the mean over s3prl's accumulated micro-batches, each with its own number of frames
        parts = []
        for start in range(0, len(targets), MICRO_BATCH):
            labels = [self._labels(target) for target in targets[start : start + MICRO_BATCH]]
            frames = torch.tensor([len(each) for each in labels], device=logits.device)
            padded = nn.utils.rnn.pad_sequence(labels, batch_first=True).to(logits.device)
            own = logits[start : start + MICRO_BATCH]
            short = padded.shape[1] - own.shape[1]
            if short > 0:  # a file may be shorter than its header says
                own = torch.cat([own, own[:, -1:].expand(-1, short, -1)], dim=1)
            own = own[:, : padded.shape[1]]
            for first in range(0, padded.shape[1], CHUNK_FRAMES):
                within = slice(first, first + CHUNK_FRAMES)
                left = (frames - first).clamp(0, CHUNK_FRAMES)
                parts.append(pit_loss(own[left > 0, within], padded[left > 0, within], left[left > 0]))
        return torch.stack(parts).mean()

    def _labels(self, target: Mapping[str, Any]) -> torch.Tensor:
        """(F, speakers) at the upstream's stride; frames are rounded down, at least one."""
        turns = [Turn(start, end, speaker) for start, end, speaker in target["turns"]]
        frames = self._frames(target)
        return torch.from_numpy(frame_labels(turns, frames, self.stride, SPEAKERS, CHUNK_FRAMES))

    def _frames(self, target: Mapping[str, Any]) -> int:
        return max(1, int(target["samples"]) // self.stride)

    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[Any]:
        return [
            Answer(each[: n + SPARE_FRAMES].float().cpu().numpy(), self.stride).text()
            for each, n in zip(logits, lens.tolist(), strict=True)
        ]

    def predictions(self, part: str, examples: Sequence[Example], answers: Sequence[Any]) -> list[Prediction]:
        """Every answer has as many frames as the recording has labels, as s3prl's expert sees to."""
        fitted = [
            Answer.of(answer).of_length(self._frames(example.target)).text() if answer else answer
            for example, answer in zip(examples, answers, strict=True)
        ]
        return super().predictions(part, examples, fitted)

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        """At threshold 0.5 without a filter; the protocol's lowest of ten is beside it."""
        return self._scores(predictions, 0.5, 1) | self._lowest(predictions)

    def selection(self, predictions: Sequence[Prediction]) -> float:
        """The share of wrong frame decisions: s3prl keeps the step of the best frame accuracy."""
        return 100 * (1 - _mean([score.accuracy for score in _frame_scores(predictions)]))

    def final_metrics(self, dev: Sequence[Prediction], test: Sequence[Prediction]) -> dict[str, Metric]:
        """Threshold and filter chosen on dev; the protocol's choice on test is beside it."""
        return self._scores(test, *_best_setting(dev)) | self._lowest(test)

    def _lowest(self, rows: Sequence[Prediction]) -> dict[str, Metric]:
        return {"der_test_selected": self._scores(rows, *_best_setting(rows))["der"]}

    def _scores(self, rows: Sequence[Prediction], threshold: float, median: int) -> dict[str, Metric]:
        made: dict[str, Metric] = {}
        groups = [row.speaker for row in rows]
        for name, collar_s in (("der", 0.0), ("der_collar_250ms", COLLAR_S)):
            found = [_errors(row, threshold, median, collar_s) for row in rows]
            if (
                collar_s == 0.0 or sum(e.total for e in found) > 0
            ):  # a collar may cover all of very short turns
                made |= percent(name, [e.wrong for e in found], [e.total for e in found], groups)
        frames, ones = _frame_scores(rows), [1.0] * len(rows)
        made |= percent("frame_der", [score.der for score in frames], ones, groups)
        made |= percent("frame_acc", [s.accuracy for s in frames], ones, groups, higher_is_better=True)
        return made

    def write_archive(self, rows: Sequence[Prediction], path: Path) -> None:
        """The leaderboard's files. See `sslbench.downstream.sd.archive`."""
        archive.write(rows, path)

    def read_archive(self, rows: Sequence[Prediction], path: Path) -> list[str]:
        """The answers of such files."""
        return archive.read(rows, path)

    def facts(self) -> Mapping[str, Any]:
        return {"head_dim": self.dim, "stride": self.stride}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _errors(row: Prediction, threshold: float, median: int, collar_s: float) -> Errors:
    return errors(turns_from(row.ref), Answer.of(row.hyp).turns(threshold, median), collar_s)


def _best_setting(rows: Sequence[Prediction]) -> tuple[float, int]:
    """The threshold and median of s3prl's ten with the lowest error rate."""
    rates = {}
    for median in MEDIANS:
        for threshold in THRESHOLDS:
            found = [_errors(row, threshold, median, 0.0) for row in rows]
            rates[threshold, median] = sum(e.wrong for e in found) / max(sum(e.total for e in found), 1e-9)
    return min(rates, key=lambda setting: rates[setting])


def _frame_scores(rows: Sequence[Prediction]) -> list[FrameScore]:
    scores = []
    for row in rows:
        answer = Answer.of(row.hyp)
        labels = frame_labels(turns_from(row.ref), len(answer.logits), answer.stride, SPEAKERS, CHUNK_FRAMES)
        scores.append(frame_score(answer.logits, labels))
    return scores
