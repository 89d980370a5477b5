"""A probe run that is killed: what was finished stays, and the rest ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from official_layouts import iemocap

SCRIPT = """
import sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {here!r})
from probe_fakes import Spectral
from sslbench.probe.runner import Named, ProbeSettings, run_task
from sslbench.probe.task import load_task
from sslbench.report import store
corpus, root = Path(sys.argv[1]), Path(sys.argv[2])
task = load_task("er", "smoke")
task.protocol = replace(task.protocol, steps=150, eval_every=50, lr_grid=[1e-2, 1e-3])
how = ProbeSettings(corpus, root / "exp", root / "results")
row = run_task(task, Spectral, Named("fake", "fake"), how)
store.save(row, root / "results")
"""


@pytest.mark.parametrize("kills", [pytest.param(2), pytest.param(10, marks=pytest.mark.kill)])
def test_sigkill_at_random_moments_changes_nothing(kills: int, tmp_path: Path) -> None:
    """Ten units (five folds, two learning rates); none that is finished runs again, no file is torn."""
    corpus = iemocap(tmp_path / "corpus")
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent)))

    def start(root: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(script), str(corpus), str(tmp_path / root)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    began = time.monotonic()
    assert start("whole").wait() == 0
    whole_s = time.monotonic() - began
    draw = random.Random(kills)
    finished: dict[Path, int] = {}
    rerun_units = 0
    for _ in range(kills):
        process = start("killed")
        time.sleep(whole_s * draw.uniform(0.5, 0.95))  # most of the time before is the start of Python
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = {
            p: p.stat().st_mtime_ns for p in (tmp_path / "killed" / "exp").glob("er/fold*/lr-*/done.json")
        }
        rerun_units += sum(found.get(path) != stamp for path, stamp in finished.items())
        finished = found
        for path in (tmp_path / "killed").rglob("*.json"):
            if not path.name.startswith(".tmp-"):
                json.loads(path.read_text())  # whole or absent
    assert rerun_units == 0
    assert start("killed").wait() == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items())
    rows = [
        json.loads((tmp_path / r / "results" / "fake" / "er.json").read_text()) for r in ("whole", "killed")
    ]
    assert rows[0]["metrics"] == rows[1]["metrics"]
    assert rows[0]["search"] == rows[1]["search"]
    leftovers = [name for _, _, names in os.walk(tmp_path / "killed" / "results") for name in names]
    assert [name for name in leftovers if not name.startswith(".tmp-")] == ["er.json"]
