"""The numbers in the READMEs' lists of behaviours come from benchmarks/quirks.py, and they say something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "quirks.py"


def rows(preset: str) -> dict[str, list[str]]:
    done = subprocess.run([sys.executable, str(SCRIPT), preset], capture_output=True, text=True, check=True)
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    return {what: values for what, *values in lines}


@pytest.mark.parametrize("preset", ["zipformer_tiny", "hubert_k2ssl_tiny"])
def test_published_behaviours_move_the_output_and_ours_do_not(preset: str) -> None:
    found = rows(preset)
    leaks = {what: values for what, values in found.items() if what.startswith("2 s clip padded")}
    assert len(leaks) == (3 if preset.startswith("zipformer") else 2)
    for published, ours in leaks.values():
        assert float(published) > 1e-3
        assert float(ours) < 1e-4
    published, ours = found["valid frames of that clip"]
    assert int(published) > int(ours) == 99
    assert found["masks unseeded: relative deviation of one batch's loss between runs"][1] == "0.0%"
