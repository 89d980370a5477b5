"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, and busy machines lose a lot."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference material that lies beside the checkout on the developers' machines."""
    folder = REPO.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference material (../shared) is not on this machine")
    return folder


@pytest.fixture(scope="session")
def mini_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded corpus at its `tiny` preset, prepared once: the folder with its manifests."""
    root = tmp_path_factory.mktemp("mini")
    command = [sys.executable, "-m", "sslbench", "data", "prepare", "mini", "--preset", "tiny"]
    subprocess.run([*command, "--root", str(root / "audio"), "--out", str(root / "manifests")], check=True)
    return root / "manifests"
