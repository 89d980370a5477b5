"""A probe run that is killed: what was finished stays, and the rest ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from official_layouts import iemocap

SCRIPT = """
import sys
from dataclasses import replace
import sslbench.probe.task
from sslbench.cli import main

share, original = float(sys.argv[1]), sslbench.probe.task.load_task

def load_shortened(name, tier):
    task = original(name, tier)
    steps = round(task.protocol.steps * share)
    task.protocol = replace(task.protocol, steps=steps, eval_every=max(1, steps // 3))
    return task

sslbench.probe.task.load_task = load_shortened
sys.exit(main(["superb", "run", *sys.argv[2:]]))
"""


class Killed:
    """`sslbench superb run` with a share of tier smoke's steps, to the end or until it is killed."""

    def __init__(self, folder: Path, share: float, words: Sequence[str]) -> None:
        self.folder = folder
        self.script = folder / "run.py"
        self.script.write_text(SCRIPT)
        self.words = [str(share), *words]
        self.finished: dict[Path, int] = {}

    def start(self, root: str) -> subprocess.Popen[str]:
        """Returns when Python and torch are loaded and the first task is announced."""
        words = [*self.words, "--out", str(self.folder / root), "--results", str(self.folder / root / "rows")]
        process = subprocess.Popen(
            [sys.executable, str(self.script), *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith("task 1 "):
            assert line, process.wait()
        return process

    def whole(self, root: str) -> float:
        """Seconds of a run to the end, without the start of Python."""
        process = self.start(root)
        began = time.monotonic()
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        return time.monotonic() - began

    def kill(self, after_s: float) -> None:
        """Start it again, kill it, and look at what is on disk."""
        process = self.start("killed")
        try:
            process.communicate(timeout=after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        self.check()

    def check(self) -> None:
        """No finished unit was done again; every file is whole or absent."""
        root = self.folder / "killed"
        found = {path: path.stat().st_mtime_ns for path in root.rglob("done.json")}
        assert {path: found.get(path) for path in self.finished} == self.finished
        self.finished = found
        for path in root.rglob("*.json"):
            if not path.name.startswith(".tmp-"):
                json.loads(path.read_text())

    def rows(self, root: str) -> dict[str, list[object]]:
        """Metrics and search of each row."""
        paths = sorted((self.folder / root / "rows").rglob("*.json"))
        rows = [json.loads(p.read_text()) for p in paths if not p.name.startswith(".tmp-")]
        return {row["evaluation"]: [row["metrics"], row["search"]] for row in rows}


def killed_at_random(run: Killed, kills: int) -> None:
    whole_s = run.whole("whole")
    draw = random.Random(kills)
    for _ in range(kills):
        run.kill(whole_s * draw.uniform(0, 2 / kills))
    run.whole("killed")
    run.check()
    assert len(run.finished) == len(list((run.folder / "whole").rglob("done.json")))
    assert run.rows("killed") == run.rows("whole")


@pytest.mark.slow
def test_sigkill_at_random_moments_changes_nothing(tmp_path: Path) -> None:
    """Fifteen units: five folds, three learning rates."""
    corpus = iemocap(tmp_path / "corpus")
    killed_at_random(
        Killed(tmp_path, 0.5, ["--upstream", "fbank", "--tasks", "er", "--data", str(corpus)]), 2
    )


@pytest.mark.kill
def test_ten_kills_of_all_tasks(tmp_path: Path, mini_corpus: Path) -> None:
    words = ["--upstream", "hubert_k2ssl_tiny", "--tasks", "all", "--data", str(mini_corpus)]
    run = Killed(tmp_path, 0.25, words)
    killed_at_random(run, 10)
    assert len(run.rows("killed")) == 10
