"""The mini recipe at its smallest: every stage runs, and a second run skips every step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from recipe_runner import check_skips, copy_recipes, run, start

SMALL = [
    *("--corpus_opts", "--preset tiny --jobs 2", "--clusters", "30", "--label_set", "train-10min"),
    *("--pretrain_opts", "--max_steps 6", "--asr_opts", "--steps 6", "--espnet_opts", ""),
    *("--superb_opts", "--lrs 1e-2"),
]
STAGES = ["data", "units", "pretrain", "export", "profile", "asr", "superb", "report"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the recipes, so that the checkout stays clean."""
    return copy_recipes(tmp_path_factory.mktemp("recipe"), "mini") / "mini" / "ssl1"


@pytest.mark.recipe
def test_every_stage_runs_and_then_skips(recipe: Path) -> None:
    first = run(recipe, *SMALL)
    for number, name in enumerate(STAGES, 1):
        assert f"stage {number} {name}" in first
    systems = {"zipformer", "zipformer_random", "hubert_k2ssl", "hubert_k2ssl_random", "fbank"}
    assert {path.name for path in (recipe / "results").iterdir()} == systems
    for system in systems:
        rows = {path.stem for path in (recipe / "results" / system).glob("*.json")}
        assert rows >= {"profile", "asr", "pr", "sid"}, system
        assert ("pretrain" in rows) == (system in {"zipformer", "hubert_k2ssl"})
    page = (recipe / "report" / "index.html").read_text()
    assert all(system in page for system in systems)
    assert (recipe / "RESULTS.md").is_file()

    check_skips(first, run(recipe, *SMALL, "--stop_stage", "7"))


@pytest.mark.recipe
def test_late_stages_run_alone_for_one_upstream(recipe: Path) -> None:
    (recipe / "results" / "zipformer" / "sid.json").unlink()
    out = run(recipe, *SMALL, "--stage", "5", "--stop_stage", "8", "--upstream", "zipformer")
    assert out.count("$ sslbench superb") == 1
    row = json.loads((recipe / "results" / "zipformer" / "sid.json").read_text())
    assert row["weights"] == "trained"


@pytest.mark.recipe
def test_killed_in_the_middle_of_pretraining_it_goes_on(recipe: Path) -> None:
    few = "--max_steps 40 --save_every 5 --log_every 5 --max_duration_s 10"
    words = ["--stop_stage", "3", "--upstream", "zipformer", "--expdir", "exp_kill", "--pretrain_opts", few]
    log = recipe / "exp_kill" / "zipformer" / "pretrain_it1" / "log.jsonl"
    running = subprocess.Popen(
        ["./run.sh", *SMALL, *words], cwd=recipe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (log.is_file() and '"step": 10' in log.read_text()):
        assert running.poll() is None, "the recipe ended before it could be killed"
        assert time.monotonic() < deadline, "no step 10 within 300 s"
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (log.parent / "DONE").exists()

    done = start(recipe, *SMALL, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "going on after step" in done.stderr
    steps = [row["step"] for row in map(json.loads, log.read_text().splitlines()) if "loss" in row]
    assert steps == list(range(5, 41, 5))


def test_wrong_options_are_named(recipe: Path) -> None:
    for words in (["--stag", "3"], ["--stage"], ["profile"]):
        done = start(recipe, *words)
        assert done.returncode == 2
        assert words[0] in done.stderr
