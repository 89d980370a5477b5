"""Recipes in a folder of their own, so that the checkout stays clean, and how they are started."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def copy_recipes(root: Path, *corpora: str) -> Path:
    """Copy the template and recipes, without what they made; returns the new `egs`."""
    ignore = shutil.ignore_patterns("data", "exp", "results", "report")
    for name in ("TEMPLATE", *corpora):
        shutil.copytree(REPO / "egs" / name, root / "egs" / name, ignore=ignore)
    return root / "egs"


def start(recipe: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a recipe, whatever comes of it."""
    return subprocess.run(["./run.sh", *words], cwd=recipe, capture_output=True, text=True, check=False)


def run(recipe: Path, *words: str) -> str:
    """What a recipe prints that must succeed."""
    done = start(recipe, *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def check_skips(first: str, again: str) -> None:
    """The second run, which leaves out the report, did nothing again."""
    assert "$ sslbench" not in again
    assert again.count("skip:") == first.count("$ sslbench") - 1
