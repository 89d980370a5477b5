"""The Mini LibriSpeech recipe on real speech: manifests, units and a few training steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipe_runner import copy_recipes, run


@pytest.mark.recipe
def test_first_three_stages_on_real_speech(tmp_path: Path, shared_dir: Path) -> None:
    recipe = copy_recipes(tmp_path, "mini", "mini_librispeech") / "mini_librispeech" / "ssl1"
    words = ["--corpus_root", str(shared_dir / "data" / "librispeech_mini"), "--stop_stage", "3"]
    few = ["--clusters", "50", "--pretrain_opts", "--max_steps 4 --max_duration_s 30 --model.num_units 50"]
    run(recipe, *words, *few, "--nj", "2")
    report = json.loads((recipe / "exp" / "units_it1" / "report.json").read_text())
    assert report["empty_clusters"] == 0
    for family in ("zipformer", "hubert_k2ssl"):
        summary = json.loads((recipe / "exp" / family / "pretrain_it1" / "summary.json").read_text())
        assert summary["steps"] == 4
