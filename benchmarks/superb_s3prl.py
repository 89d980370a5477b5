"""s3prl's own runner, unmodified, once: one task, one learning rate, a number of steps."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslbench.io import write_yaml

HEAD = {"projector_dim": 256, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}}
FOLDERS = {"ks": "speech_commands", "ic": "fluent_commands", "er": "emotion", "sid": "voxceleb1", "pr": "ctc"}
MICRO = {"ks": (32, 1), "ic": (32, 1), "er": (4, 8), "sid": (8, 4), "pr": (16, 2)}  # batch, accumulation


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


def make_copy(root: Path | None, work: Path) -> Path:
    """A copy of the installed s3prl, which may be filled with its caches, and stand-ins for absent packages.

    The wheel lacks `downstream/ctc/corpus`, which PR needs: it comes from a checkout. `catalyst` is imported
    by speech_commands and used with several processes only; torchaudio looks for the unversioned name of
    libsox.
    """
    copy = work / "s3prl"
    if not copy.is_dir():
        found = importlib.util.find_spec("s3prl")
        if found is None or found.origin is None:
            raise SystemExit("s3prl is not installed: pip install 'sslbench[s3prl]'")
        shutil.copytree(Path(found.origin).parent, copy / "s3prl")
    if root is not None:
        corpus = root / "s3prl" / "downstream" / "ctc" / "corpus"
        shutil.copytree(corpus, copy / "s3prl" / "downstream" / "ctc" / "corpus", dirs_exist_ok=True)
    stub = work / "stubs" / "catalyst" / "data"
    stub.mkdir(parents=True, exist_ok=True)
    (stub / "sampler.py").write_text("DistributedSamplerWrapper = None\n")
    for folder in (stub, stub.parent):
        (folder / "__init__.py").touch()
    library = ctypes.util.find_library("sox")
    link = work / "lib" / "libsox.so"
    link.parent.mkdir(exist_ok=True)
    if library and not link.is_symlink():
        path = next((p for p in Path("/usr/lib").rglob(library)), None)
        if path:
            link.symlink_to(path)
    return copy


def run_s3prl(
    copy: Path, work: Path, task: str, root: Path, upstream: str, lr: float, steps: int, seed: int = 0
) -> Ran:
    """Train with evaluation of dev and test at the last step, as the runner does it."""
    shutil.rmtree(copy / "s3prl" / "downstream" / "voxceleb1" / ".cache", ignore_errors=True)
    exp = work / "exp" / f"{task}-{lr:g}"
    shutil.rmtree(exp, ignore_errors=True)
    exp.mkdir(parents=True)
    write_yaml(exp / "config.yaml", _config(task, root, lr, steps))
    command = [
        sys.executable, "-m", "sslbench.integrations.s3prl.run_downstream", "-m", "train", "-p", str(exp),
        "-u", upstream, "-d", FOLDERS[task], "-c", str(exp / "config.yaml"), "--device", "cpu",
        "--seed", str(seed),
    ]  # fmt: skip
    path = os.pathsep.join([str(copy), str(work / "stubs"), str(Path(__file__).resolve().parent.parent)])
    libraries = os.pathsep.join([str(work / "lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    started = time.monotonic()
    with (exp / "log.txt").open("w") as log:
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, check=False, cwd=copy / "s3prl",
            env={**os.environ, "PYTHONPATH": path, "LD_LIBRARY_PATH": libraries},
        )  # fmt: skip
    wall_s = time.monotonic() - started
    text = (exp / "log.txt").read_text(errors="replace")
    scores = re.findall(r"\b(dev|test) (?:acc|per): ([0-9.eE+-]+)", text)
    if done.returncode or {part for part, _ in scores} != {"dev", "test"}:
        raise SystemExit(f"s3prl's runner failed; see {exp / 'log.txt'}:\n{text[-1500:]}")
    bar = re.findall(r"overall: *\d+%[^\r\n\[]*?(\d+)/(\d+) \[(\d+):(\d+)(?::(\d+))?", text)
    counted = {int(done): _seconds(*clock) for done, _, *clock in bar}
    if steps not in counted or len(counted) < 3:
        raise SystemExit(f"no progress bar to time in {exp / 'log.txt'}")
    last = max(done for done in counted if 0 < done < steps)
    found = dict(scores)
    return Ran(
        wall_s, counted[steps], counted[last] / last, 100 * float(found["dev"]), 100 * float(found["test"])
    )


def _seconds(*fields: str) -> float:
    numbers = [int(word) for word in fields if word]
    return float(sum(n * 60**k for k, n in enumerate(reversed(numbers))))


def _config(task: str, root: Path, lr: float, steps: int) -> dict[str, Any]:
    batch, accumulation = MICRO[task]
    runner = {
        "total_steps": steps, "gradient_clipping": 1, "gradient_accumulate_steps": accumulation,
        "log_step": steps, "eval_step": steps, "save_step": steps, "max_keep": 1,
        "eval_dataloaders": ["dev", "test"],
    }  # fmt: skip
    loading = {"num_workers": 0, "batch_size": batch, "train_batch_size": batch}
    data: dict[str, dict[str, Any]] = {
        "ks": {
            "speech_commands_root": str(root / "speech_commands_v0.01"),
            "speech_commands_test_root": str(root / "speech_commands_test_set_v0.01"),
        },
        "ic": {"file_path": str(root), "eval_batch_size": 32},
        "er": {
            "root": str(root), "meta_data": str(root / "meta_data"), "test_fold": "fold1", "pre_load": True,
            "eval_batch_size": 4, "valid_ratio": 0.2,
        },
        "sid": {
            "file_path": str(root), "meta_data": str(root / "veri_test_class.txt"), "eval_batch_size": 1,
            "max_timestep": 128_000,
        },
    }  # fmt: skip
    expert: dict[str, Any] = {"datarc": {**data.get(task, {}), **loading}, "modelrc": HEAD}
    if task == "pr":
        expert = _phone_expert(root, batch)
    return {
        "runner": runner,
        "optimizer": {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": lr},
        "downstream_expert": expert,
    }


def _phone_expert(root: Path, batch: int) -> dict[str, Any]:
    corpus = {
        "name": "libriphone", "path": str(root / "LibriSpeech"), "lexicon": [str(root / "lexicon.txt")],
        "train": ["train-clean-100"], "dev": ["dev-clean"], "test": ["test-clean"], "bucketing": True,
        "batch_size": batch, "num_workers": 0,
    }  # fmt: skip
    return {
        "corpus": corpus,
        "text": {"mode": "word", "vocab_file": str(root / "phones.txt")},
        "model": {"project_dim": 256, "zero_infinity": True, "select": "FrameLevel"},
        "save_best_on": ["dev"],
        "metric_higher_better": False,
        "metric": ["per"],
    }
