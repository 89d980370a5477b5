"""The mini recipe of ESPnet's ASR at its smallest: every stage runs, and a second run skips every step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipe_runner import REPO, check_skips, copy_recipes, run, start

from sslbench import io

STAGES = ["data", "export", "train", "decode", "score", "report"]
SMALL = ["--corpus_opts", "--preset tiny --jobs 2", "--upstream", "zipformer_tiny"]


@pytest.mark.recipe
def test_every_stage_runs_and_then_skips(tmp_path: Path) -> None:
    pytest.importorskip("espnet2")
    recipe = copy_recipes(tmp_path, "mini") / "mini" / "asr1"
    words = [*SMALL, "--asr_opts", "--epochs 1"]
    first = run(recipe, *words)
    for number, name in enumerate(STAGES, 1):
        assert f"stage {number} {name}" in first
    row = json.loads((recipe / "results" / "zipformer_tiny" / "asr_espnet.json").read_text())
    assert row["metrics"]["wer"]["n"] > 0
    assert row["methods"]["engine"].startswith("espnet ")
    assert "zipformer_tiny" in (recipe / "RESULTS.md").read_text()

    check_skips(first, run(recipe, *words, "--stop_stage", "5"))


@pytest.mark.parametrize("corpus", ["mini", "librispeech_100"])
def test_recipes_name_configurations_that_exist(corpus: str) -> None:
    folder = REPO / "egs" / corpus / "asr1"
    assert len((folder / "run.sh").read_text().splitlines()) <= 40
    said = run(folder, "--dry_run", "true", "--expdir", "none", "--resultsdir", "none")
    commands = [line.split() for line in said.splitlines() if "$ sslbench espnet" in line]
    assert commands
    for words in commands:
        for flag in ("--config", "--decode_config"):
            settings = io.read_yaml(folder / words[words.index(flag) + 1])
            assert isinstance(settings, dict)
            if flag == "--config":
                assert settings["freeze_param"] == ["frontend.upstream"]


def test_wrong_options_are_named() -> None:
    done = start(REPO / "egs" / "mini" / "asr1", "--stag", "3")
    assert done.returncode == 2
    assert "--stag" in done.stderr
