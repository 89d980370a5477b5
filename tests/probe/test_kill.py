"""A probe run that is killed: what was finished stays, and the rest ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from probe_fakes import make_corpus

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {here!r})
from probe_fakes import Spectral
from sslbench.probe.runner import Named, ProbeSettings, run_task
from sslbench.probe.task import load_task
from sslbench.report import store
corpus, root = Path(sys.argv[1]), Path(sys.argv[2])
task = load_task("sid", "smoke")
task.protocol = replace(task.protocol, steps=400, eval_every=50, lr_grid=[1e-2, 1e-3])
how = ProbeSettings(corpus, root / "exp", root / "results")
row = run_task(task, Spectral, Named("fake", "fake"), how)
store.save(row, root / "results")
"""


@pytest.mark.slow
def test_sigkill_at_several_moments_changes_nothing(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent)))

    def start(root: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(script), str(corpus), str(tmp_path / root)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    began = time.monotonic()
    assert start("whole").wait() == 0
    whole_s = time.monotonic() - began
    for share in (0.5, 0.8, 0.95):
        process = start("killed")
        time.sleep(whole_s * share)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for done in (tmp_path / "killed" / "exp").glob("sid/lr-*/done.json"):
            json.loads(done.read_text())  # whole or absent
    assert start("killed").wait() == 0
    rows = [
        json.loads((tmp_path / r / "results" / "fake" / "sid.json").read_text()) for r in ("whole", "killed")
    ]
    assert rows[0]["metrics"] == rows[1]["metrics"]
    assert rows[0]["search"] == rows[1]["search"]
    leftovers = [name for _, _, names in os.walk(tmp_path / "killed" / "results") for name in names]
    assert leftovers == ["sid.json"]
