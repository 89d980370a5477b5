"""A corpus that a one-layer model learns in seconds: every clip is one noisy tone, its unit is the tone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy import make_corpus


@pytest.fixture(scope="session")
def toy_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `train.jsonl.gz` and `dev.jsonl.gz`."""
    folder = tmp_path_factory.mktemp("toy")
    make_corpus(folder, "train", 48, seed=1)
    make_corpus(folder, "dev", 12, seed=2)
    return folder


@pytest.fixture
def settings(toy_corpus: Path, tmp_path: Path) -> dict[str, Any]:
    """A run of seconds."""
    from toy import SETTINGS

    return {
        **SETTINGS,
        "train_manifest": str(toy_corpus / "train.jsonl.gz"),
        "dev_manifest": str(toy_corpus / "dev.jsonl.gz"),
        "exp_dir": str(tmp_path / "exp"),
    }
