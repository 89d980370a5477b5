"""Automatic speaker verification (ASV): x-vector on frozen features, cosine scores, equal error rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.downstream.asv.data import Trial, drawn_trials, labelled, official
from sslbench.downstream.asv.eer import equal_error_rate, interval
from sslbench.downstream.asv.model import XVector, am_softmax
from sslbench.errors import SslbenchError
from sslbench.io import sha256_json
from sslbench.probe.files import is_prepared, speaker
from sslbench.probe.task import Example, Parts, Prediction, ProbeTask
from sslbench.report.schema import Metric

GAIN_DB = -3.0
SILENCE_LEVEL = 0.001  # of full scale
SILENCE_S, WINDOW_S = 0.1, 0.02
SEPARATOR = "|"


class Task(ProbeTask):
    """ASV as SUPERB defines it; one prediction row per trial (`hyp` the score, `ref` 1 for one speaker,
    `speaker` both speakers)."""

    name = "asv"
    headline = "eer"
    higher_is_better = False
    test_selected = True
    config_path = Path(__file__).with_name("config.yaml")

    def prepare(self, root: Path) -> Parts:
        corpus = labelled(root, self.settings) if is_prepared(root) else official(root, self.tier == "full")
        self._trials: dict[str, list[Trial]] = {}
        self._listed = {"test": corpus.trials} if corpus.trials else {}
        least_s = float(self.settings["min_train_s"])
        train = [cut for cut in corpus.parts["train"] if cut.duration >= least_s]
        self.labels = sorted({speaker(cut) for cut in train})
        if len(self.labels) < 2:
            raise SslbenchError(
                f"asv: {root}: {len(self.labels)} speakers have training clips of {least_s:g} s"
            )
        index = {name: number for number, name in enumerate(self.labels)}
        parts = {
            part: [Example(c, -1, "", speaker(c)) for c in corpus.parts[part]] for part in ("dev", "test")
        }
        parts["train"] = [Example(cut, index[speaker(cut)], "", speaker(cut)) for cut in train]
        return parts

    def waveform(self, wav: torch.Tensor) -> torch.Tensor:
        return without_silence(wav * 10 ** (GAIN_DB / 20))

    def head(self, input_dim: int) -> nn.Module:
        return XVector(input_dim, len(self.labels))

    def loss(self, logits: torch.Tensor, lens: torch.Tensor, targets: Sequence[Any]) -> torch.Tensor:
        return am_softmax(logits, torch.tensor(targets, device=logits.device))

    def decode(self, logits: torch.Tensor, lens: torch.Tensor) -> list[Any]:
        return list(logits.cpu())

    def predictions(self, part: str, examples: Sequence[Example], answers: Sequence[Any]) -> list[Prediction]:
        known = {e.id: (e.speaker, answer) for e, answer in zip(examples, answers, strict=True)}
        rows = []
        for trial in self.trials(part, examples):
            (one, enrol), (other, test) = known[trial.enrol], known[trial.test]
            score = f"{float(enrol @ test):.6f}"
            name, speakers = SEPARATOR.join([trial.enrol, trial.test]), SEPARATOR.join([one, other])
            rows.append(Prediction(name, score, str(int(trial.same)), speakers))
        return rows

    def trials(self, part: str, examples: Sequence[Example]) -> list[Trial]:
        """The trials of a part: the official ones that these clips allow, or drawn ones.

        Raises:
            SslbenchError: they are not of both kinds.
        """
        if part not in self._trials:
            ids = {example.id for example in examples}
            listed = self._listed.get(part)
            kept = (
                [trial for trial in listed if trial.enrol in ids and trial.test in ids]
                if listed
                else drawn_trials(examples)
            )
            if {trial.same for trial in kept} != {True, False}:
                raise SslbenchError(
                    f"asv: {part} has no trials of both kinds; it needs more speakers and sessions"
                )
            self._trials[part] = kept
        return self._trials[part]

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        same, scores = _same(predictions), _scores(predictions)
        value = 100 * equal_error_rate(same, scores)
        metric = Metric(value=value, unit="%", higher_is_better=False, n=len(predictions))
        low, high = interval(same, scores, [_speakers(row) for row in predictions])
        if not math.isnan(low):
            metric = metric.model_copy(update={"low": 100 * low, "high": 100 * high})
        return {"eer": metric}

    def selection(self, predictions: Sequence[Prediction]) -> float:
        return 100 * equal_error_rate(_same(predictions), _scores(predictions))

    def facts(self) -> dict[str, Any]:
        listed = {part: [vars(t) for t in trials] for part, trials in self._listed.items()}
        return {"labels": self.labels, "trials": sha256_json(listed)}


def _same(rows: Sequence[Prediction]) -> list[bool]:
    return [row.ref == "1" for row in rows]


def _scores(rows: Sequence[Prediction]) -> list[float]:
    return [float(row.hyp) for row in rows]


def _speakers(row: Prediction) -> tuple[str, str]:
    """The two speakers of a trial; one name alone stands for both."""
    one, _, other = row.speaker.partition(SEPARATOR)
    return one, other or one


def without_silence(wav: torch.Tensor) -> torch.Tensor:
    """Leave out every stretch of at least 0.1 s whose level (over 20 ms) is below 0.1 % of full scale.

    What s3prl does with sox's `silence 1 0.1 0.1% -1 0.1 0.1%`, up to a window's length at each edge. A clip
    that is silent throughout stays as it is.
    """
    window, least = int(WINDOW_S * SAMPLE_RATE_HZ), int(SILENCE_S * SAMPLE_RATE_HZ)
    if len(wav) < least:
        return wav
    energy = torch.nn.functional.avg_pool1d(wav.square()[None], window, stride=1, padding=window // 2)[0]
    loud = energy[: len(wav)].sqrt() >= SILENCE_LEVEL
    edges = torch.nonzero(torch.diff(loud.int(), prepend=torch.tensor([1]), append=torch.tensor([1])))[:, 0]
    keep = torch.ones(len(wav), dtype=torch.bool)
    for start, end in edges.view(-1, 2).tolist():
        if end - start >= least:
            keep[start:end] = False
    return wav[keep] if bool(keep.any()) else wav
