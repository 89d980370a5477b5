"""A corpus that a one-layer model learns in seconds: every clip is one noisy tone, its unit is the tone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import Recording

from sslbench.cli import main
from sslbench.data.manifests import write_manifest
from sslbench.io import read_jsonl, write_yaml
from sslbench.pretrain.config import PretrainConfig

TONES_HZ = (200, 450, 900, 1700)

MODEL = {
    "layers": 1, "dim": 32, "ffn_dim": 64, "heads": 2, "num_units": len(TONES_HZ), "conv_pos": 8,
    "conv_pos_groups": 4, "dropout": 0.05, "span_frames": 5,
    "conv_layers": [[16, 10, 5], [16, 8, 8], [32, 8, 8]],
}  # fmt: skip

SETTINGS: dict[str, Any] = {
    "upstream": "hubert_k2ssl_tiny", "model": MODEL, "max_steps": 12, "max_duration_s": 6.0,
    "min_duration_s": 0.1, "num_workers": 0, "optimizer": "adamw", "lr": 3e-3, "warmup_steps": 5,
    "log_every": 1, "valid_every": 6, "save_every": 4, "tensorboard": False, "utterance_log": True,
}  # fmt: skip


def make_corpus(folder: Path, split: str, count: int, seed: int) -> Path:
    """Write tones of 0.6 to 1.4 s with noise, and their manifest with units."""
    rng = np.random.default_rng(seed)
    cuts = []
    for i in range(count):
        tone = i % len(TONES_HZ)
        size = int(rng.integers(9_600, 22_400))
        wave = 0.3 * np.sin(2 * np.pi * TONES_HZ[tone] * np.arange(size) / 16_000 + rng.uniform(0, 6))
        path = folder / f"{split}{i:03d}.wav"
        soundfile.write(path, wave + 0.02 * rng.standard_normal(size), 16_000, subtype="FLOAT")
        cut = Recording.from_file(path, recording_id=path.stem).to_cut().with_id(path.stem)
        cut.custom = {"kmeans": " ".join([str(tone)] * (size // 320))}
        cuts.append(cut)
    manifest = folder / f"{split}.jsonl.gz"
    write_manifest(cuts, manifest)
    return manifest


def make_settings(corpus: Path, exp: Path, **changes: Any) -> dict[str, Any]:
    """A run of seconds on the corpus."""
    manifests = {f"{split}_manifest": str(corpus / f"{split}.jsonl.gz") for split in ("train", "dev")}
    return {**SETTINGS, **manifests, "exp_dir": str(exp), **changes}


def make_both(folder: Path) -> Path:
    """The train and dev splits; returns the folder."""
    make_corpus(folder, "train", 48, seed=1)
    make_corpus(folder, "dev", 12, seed=2)
    return folder


def config(settings: dict[str, Any], **changes: Any) -> PretrainConfig:
    """A configuration with changes."""
    return PretrainConfig(**{**settings, **changes})


def curve(exp: Path | str) -> list[tuple[int, float, float, float]]:
    """(step, loss, accuracy, gradient norm) of every update, as logged."""
    rows = [row for row in read_jsonl(Path(exp) / "log.jsonl") if "loss" in row]
    return [(row["step"], row["loss"], row["acc"], row["grad_norm"]) for row in rows]


def weights(exp: Path | str, step: int, name: str = "model.safetensors") -> bytes:
    """The bytes of a checkpoint's weights."""
    return (Path(exp) / "checkpoints" / f"step-{step:08d}" / name).read_bytes()


def fork_run(
    settings: dict[str, Any], output: Path, before: Callable[[], None] | None = None, **environment: str
) -> int:
    """`sslbench pretrain` in a child process, forked so that it need not import everything again.

    Args:
        settings: of the run.
        output: file that gets what it prints.
        before: called in the child first.
        environment: further variables.

    Returns:
        Its process id, also that of its process group; its exit status is that of the command line.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        os.environ.update(environment)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w", buffering=1)
        if before is not None:
            before()
        path = output.with_suffix(".yaml")
        write_yaml(path, settings)
        status = main(["pretrain", "--config", str(path)])
    finally:
        os._exit(status)


def finish(pid: int) -> int:
    """Wait for a child: its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
