"""The ASR task: its protocol is a valid configuration, its parts fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sslbench import registry
from sslbench.downstream.asr.task import CONFIG, Task
from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.data import transcript
from sslbench.finetune.transcripts import Transcript
from sslbench.finetune.vocab import frames_needed


def test_registered_and_protocol_is_superbs() -> None:
    assert registry.tasks()["asr"].load() is Task
    config = Task().config
    assert isinstance(config, FinetuneConfig)
    assert (config.steps, config.lr, config.blstm_dim, config.clip_norm) == (200_000, 1e-4, 1024, 1.0)
    assert config.tune == "frozen"
    assert "arXiv:2105.01051" in CONFIG.read_text()


def test_parts_on_the_embedded_corpus(mini_corpus: Path) -> None:
    task = Task()
    with pytest.raises(SslbenchError, match="prepare"):
        task.head(8)
    cuts = task.prepare(mini_corpus)
    assert task.vocab is not None
    classes = task.vocab.encode(transcript(cuts["dev"][0]) or "")
    frames = max(4, frames_needed(classes))
    scores, lens = task.head(8)(torch.randn(1, frames, 8), torch.tensor([frames]))
    assert scores.shape == (1, frames, len(task.vocab))
    assert lens.tolist() == [frames]
    references = {cut.id: Transcript(cut.id, transcript(cut) or "", "s") for cut in cuts["test"]}
    right = {identifier: reference.text for identifier, reference in references.items()}
    assert task.metrics(right, references)["wer"].value == 0.0
    right[next(iter(right))] = "SOMETHING ELSE ENTIRELY"
    assert task.metrics(right, references)["wer"].value > 0.0


def test_missing_splits_are_named(tmp_path: Path) -> None:
    with pytest.raises(SslbenchError, match="lacks train-clean-100, dev-clean, test-clean"):
        Task().prepare(tmp_path)
