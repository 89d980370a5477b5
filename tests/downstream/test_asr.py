"""The ASR task: its protocol is a valid configuration of fine-tuning."""

from __future__ import annotations

from sslbench import registry
from sslbench.downstream.asr.task import CONFIG, Task


def test_registered_and_protocol_is_superbs() -> None:
    assert registry.tasks()["asr"].load() is Task
    config = Task().config
    assert (config.steps, config.lr, config.blstm_dim, config.clip_norm) == (200_000, 1e-4, 1024, 1.0)
    assert config.tune == "frozen"
    assert "arXiv:2105.01051" in CONFIG.read_text()
