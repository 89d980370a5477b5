"""s3prl's own runner, unmodified, once: one task, one learning rate, a number of steps."""

from __future__ import annotations

import importlib.util
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from sslbench.io import write_yaml
from sslbench.probe.s3prl_engine import call_runner, check_root, load_template, runner_config
from sslbench.probe.task import load_task


@dataclass
class Ran:
    """One run of theirs."""

    wall_s: float
    run_s: float
    """From the first training step on, evaluation included."""
    step_s: float
    """Seconds per training step, evaluation left out (from its progress bar, which counts whole seconds)."""
    dev: float
    test: float


def installed_root() -> Path:
    """The folder that holds the installed s3prl."""
    found = importlib.util.find_spec("s3prl")
    if found is None or found.origin is None:
        raise SystemExit("s3prl is not installed: pip install 'sslbench[s3prl]'")
    return Path(found.origin).parent.parent


def run_s3prl(
    root: Path, work: Path, task_name: str, data: Path, upstream: str, lr: float, steps: int, seed: int = 0
) -> Ran:
    """Train with evaluation of dev and test at the last step, as the runner does it."""
    exp = work / "exp" / f"{task_name}-{lr:g}"
    shutil.rmtree(exp, ignore_errors=True)
    exp.mkdir(parents=True)
    task = load_task(task_name, "full")
    task.protocol = replace(task.protocol, steps=steps, eval_every=steps)
    template = load_template(task)
    check_root(root, template)
    config = runner_config(task, template, data, lr, "fold1")
    config["runner"] |= {"log_step": steps, "eval_dataloaders": ["dev", "test"]}
    if task_name == "pr":  # the corpus's lexicon has no stress marks
        config["downstream_expert"]["text"]["vocab_file"] = str(data / "phones.txt")
    write_yaml(exp / "config.yaml", config)
    words = ["-m", "train", "-p", str(exp), "-u", upstream, "-d", template.downstream]
    words += ["-c", str(exp / "config.yaml"), "--device", "cpu", "--seed", str(seed)]
    started = time.monotonic()
    log = call_runner(words, exp, root)
    wall_s = time.monotonic() - started
    text = log.read_text(errors="replace")
    scores = re.findall(r"\b(dev|test) (?:acc|per): ([0-9.eE+-]+)", text)
    if {part for part, _ in scores} != {"dev", "test"}:
        raise SystemExit(f"no scores in {log}:\n{text[-1500:]}")
    bar = re.findall(r"overall: *\d+%[^\r\n\[]*?(\d+)/(\d+) \[(\d+):(\d+)(?::(\d+))?", text)
    counted = {int(done): _seconds(*clock) for done, _, *clock in bar}
    if steps not in counted or len(counted) < 3:
        raise SystemExit(f"no progress bar to time in {log}")
    last = max(done for done in counted if 0 < done < steps)
    found = dict(scores)
    return Ran(
        wall_s, counted[steps], counted[last] / last, 100 * float(found["dev"]), 100 * float(found["test"])
    )


def _seconds(*fields: str) -> float:
    numbers = [int(word) for word in fields if word]
    return float(sum(n * 60**k for k, n in enumerate(reversed(numbers))))
