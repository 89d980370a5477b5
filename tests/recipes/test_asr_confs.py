"""Every fine-tuning configuration of every recipe is one that `sslbench finetune` takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from recipe_runner import run

from sslbench import config as configs
from sslbench.data.manifests import write_corpus
from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.search import finetune

REPO = Path(__file__).resolve().parents[2]
CONFS = sorted(REPO.glob("egs/*/ssl1/conf/asr*.yaml"))
LIBRISPEECH = [path for path in CONFS if path.parts[-4] == "librispeech"]
FILLED = {"train_manifest": "train.jsonl.gz", "dev_manifest": "dev.jsonl.gz"}


@pytest.mark.parametrize("path", CONFS, ids=lambda path: f"{path.parts[-4]}-{path.stem}")
def test_configuration_is_valid(path: Path) -> None:
    config = replace(configs.load(FinetuneConfig, path), **FILLED)
    config.check()
    assert config.upstream_freeze_steps < config.steps
    assert config.eval_every_steps <= config.steps


@pytest.mark.parametrize("path", LIBRISPEECH, ids=lambda path: path.stem)
def test_filterbanks_train_by_every_configuration_of_librispeech(path: Path, tmp_path: Path) -> None:
    """They have nothing to mask inside and nothing that is tuned, but they are the recipe's baseline."""
    data = _noise(tmp_path)
    config = replace(
        configs.load(FinetuneConfig, path), upstream="fbank", train_manifest=data, dev_manifest=data,
        exp_dir=str(tmp_path / "exp"), steps=1, upstream_freeze_steps=0, eval_every_steps=1,
        max_duration_s=4.0, bpe_size=8, transducer_loss="full", device="cpu",
    )  # fmt: skip
    assert config.span_mask_prob > 0
    done = finetune(config)
    assert (done["steps"], done["params_upstream"]) == (1, 0)
    assert done["params_trainable"] > 0


def _noise(folder: Path) -> str:
    cuts = []
    for number, text in enumerate(("A BAD CAB", "ACE A DEED")):
        name, audio = f"c{number}", np.random.default_rng(number).standard_normal(16_000) * 0.1
        soundfile.write(folder / f"{name}.wav", audio, 16_000)
        recording = Recording.from_file(folder / f"{name}.wav", recording_id=name)
        told = SupervisionSegment(name, name, 0.0, recording.duration, text=text, speaker=name)
        cuts.append(MonoCut(name, 0.0, recording.duration, 0, recording=recording, supervisions=[told]))
    write_corpus(folder, "noise", {"train": cuts}, synthetic=True)
    return str(folder / "train.jsonl.gz")


def test_librispeech_has_one_for_each_amount_of_labels() -> None:
    by_name = {path.stem: path for path in LIBRISPEECH}
    steps = [configs.load(FinetuneConfig, by_name[f"asr_{h}h"]).steps for h in (1, 10, 100, 960)]
    assert steps == [13_000, 20_000, 80_000, 320_000]  # wav2vec 2.0 (arXiv 2006.11477), appendix B


def test_librispeech_trains_on_all_gpus_and_scores_both_test_sets() -> None:
    options = (
        "--stages asr --upstream hubert_k2ssl_base --baselines= --twins false --expdir none --resultsdir none"
    )
    words = [*options.split(), "--asr_config", "conf/asr_10h.yaml", "--dry_run", "true"]
    said = run(REPO / "egs" / "librispeech" / "ssl1", *words)
    clean, other = [line.split() for line in said.splitlines() if "sslbench finetune" in line]
    assert clean[clean.index("--ngpu") + 1] == "8"
    assert "--ngpu" not in other, "it is trained by then"
    for command, row, split in ((clean, "asr_10h", "test-clean"), (other, "asr_10h_other", "test-other")):
        assert command[command.index("--evaluation") + 1] == row
        assert command[command.index("--test_manifest") + 1].endswith(f"{split}.jsonl.gz")
        assert command[command.index("--exp_dir") + 1] == "none/hubert_k2ssl_base/asr_10h"


def test_tier_full_asks_for_the_twins_random_weights() -> None:
    words = (
        "--stages superb --upstream hubert_k2ssl_base --baselines= --tasks pr --expdir none --resultsdir none"
    )
    said = run(REPO / "egs" / "librispeech" / "ssl1", *words.split(), "--dry_run", "true")
    trained, twin = [line.split() for line in said.splitlines() if "sslbench superb run" in line]
    assert "--random_weights" in twin
    assert "--random_weights" not in trained


def test_a_misspelt_setting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "asr.yaml"
    path.write_text("tune: full\nupstream_freeze_step: 1\n")
    with pytest.raises(SslbenchError, match="upstream_freeze_step"):
        configs.load(FinetuneConfig, path)
