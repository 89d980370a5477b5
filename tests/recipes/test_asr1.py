"""The mini recipe of ESPnet's ASR at its smallest: every stage runs, and a second run skips every step."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sslbench import io

REPO = Path(__file__).resolve().parents[2]
STAGES = ["data", "export", "train", "decode", "score", "report"]
SMALL = ["--corpus_opts", "--preset tiny --jobs 2", "--upstream", "zipformer_tiny"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A copy of the recipes, so that the checkout stays clean."""
    ignore = shutil.ignore_patterns("data", "exp", "results", "report")
    for name in ("TEMPLATE", "mini"):
        shutil.copytree(REPO / "egs" / name, tmp_path / "egs" / name, ignore=ignore)
    return tmp_path / "egs" / "mini" / "asr1"


def run(recipe: Path, *words: str) -> str:
    done = subprocess.run(
        ["./run.sh", *SMALL, *words], cwd=recipe, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.recipe
def test_every_stage_runs_and_then_skips(recipe: Path) -> None:
    pytest.importorskip("espnet2")
    words = ["--asr_opts", "--epochs 1"]
    first = run(recipe, *words)
    for number, name in enumerate(STAGES, 1):
        assert f"stage {number} {name}" in first
    row = json.loads((recipe / "results" / "zipformer_tiny" / "asr_espnet.json").read_text())
    assert row["metrics"]["wer"]["n"] > 0
    assert row["methods"]["engine"].startswith("espnet ")
    assert "zipformer_tiny" in (recipe / "RESULTS.md").read_text()

    again = run(recipe, *words, "--stop_stage", "5")
    assert "$ sslbench" not in again
    assert again.count("skip:") == first.count("$ sslbench") - 1  # all but the report


@pytest.mark.parametrize("corpus", ["mini", "librispeech_100"])
def test_recipes_name_configurations_that_exist(corpus: str) -> None:
    folder = REPO / "egs" / corpus / "asr1"
    assert len((folder / "run.sh").read_text().splitlines()) <= 40
    done = subprocess.run(
        ["./run.sh", "--dry_run", "true", "--expdir", "none", "--resultsdir", "none"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    commands = [line.split() for line in done.stdout.splitlines() if "$ sslbench espnet" in line]
    assert commands
    for words in commands:
        for flag in ("--config", "--decode_config"):
            settings = io.read_yaml(folder / words[words.index(flag) + 1])
            assert isinstance(settings, dict)
            if flag == "--config":
                assert settings["freeze_param"] == ["frontend.upstream"]


def test_wrong_options_are_named() -> None:
    folder = REPO / "egs" / "mini" / "asr1"
    done = subprocess.run(
        ["./run.sh", "--stag", "3"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--stag" in done.stderr
