"""Every fine-tuning configuration of every recipe is one that `sslbench finetune` takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sslbench import config as configs
from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig

REPO = Path(__file__).resolve().parents[2]
CONFS = sorted(REPO.glob("egs/*/ssl1/conf/asr*.yaml"))
FILLED = {"train_manifest": "train.jsonl.gz", "dev_manifest": "dev.jsonl.gz"}


@pytest.mark.parametrize("path", CONFS, ids=lambda path: f"{path.parts[-4]}-{path.stem}")
def test_configuration_is_valid(path: Path) -> None:
    config = replace(configs.load(FinetuneConfig, path), **FILLED)
    config.check()
    assert config.upstream_freeze_steps < config.steps
    assert config.eval_every_steps <= config.steps


def test_librispeech_has_one_for_each_amount_of_labels() -> None:
    by_name = {path.stem: path for path in CONFS if path.parts[-4] == "librispeech"}
    steps = [configs.load(FinetuneConfig, by_name[f"asr_{h}h"]).steps for h in (1, 10, 100, 960)]
    assert steps == [13_000, 20_000, 80_000, 320_000]  # wav2vec 2.0 (arXiv 2006.11477), appendix B


def test_a_misspelt_setting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "asr.yaml"
    path.write_text("tune: full\nupstream_freeze_step: 1\n")
    with pytest.raises(SslbenchError, match="upstream_freeze_step"):
        configs.load(FinetuneConfig, path)
