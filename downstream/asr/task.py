"""Speech recognition (ASR) by fine-tuning: its protocol is a configuration of `sslbench finetune`."""

from __future__ import annotations

from pathlib import Path

from sslbench import config as configs
from sslbench.finetune.config import FinetuneConfig

CONFIG = Path(__file__).with_name("config.yaml")


class Task:
    """SUPERB's ASR. It is no probe task of `sslbench superb`, where the same head is `superb_asr`."""

    name = "asr"

    def __init__(self) -> None:
        self.config = configs.load(FinetuneConfig, CONFIG)
