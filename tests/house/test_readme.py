"""The README is true: its commands and its example are run as written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

README = (REPO / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def commands(start: str) -> list[str]:
    lines = [
        line.split("#")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith(start)]


@pytest.mark.recipe
def test_sslbench_commands_run_as_written(tmp_path: Path) -> None:
    example = next(block for kind, block in BLOCKS if kind == "python")
    (tmp_path / "my_upstream.py").write_text(example)
    lines = commands("sslbench ")
    assert len(lines) >= 8
    for line in lines:
        words = [sys.executable, "-m", "sslbench", *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    page = (tmp_path / "report" / "index.html").read_text()
    assert "fbank" in page


def test_make_targets_exist() -> None:
    for line in commands("make "):
        done = subprocess.run(
            ["make", "-n", *shlex.split(line)[1:]], cwd=REPO, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", commands("./run.sh"))
def test_recipe_lines_are_valid(line: str) -> None:
    words = [*shlex.split(line), "--dry_run", "true"]
    done = subprocess.run(words, cwd=REPO / "egs/mini/ssl1", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPO / link).exists(), f"README links to {link}, which does not exist"
