"""One corpus and one uninterrupted run to compare with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "pretrain"))
from pretrain_toy import MODEL, SETTINGS, make_both, make_settings

MODEL_NAME = SETTINGS["upstream"]
STEPS = {"sample": 40, "campaign": 200}


@pytest.fixture(scope="session")
def toy_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus; also imports what runs need, so that forked ones start at once and all run one code."""
    import sslbench.pretrain.trainer  # noqa: F401
    from sslbench.upstreams import build_model

    build_model(MODEL_NAME, MODEL)
    return make_both(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def toy_settings(toy_corpus: Path) -> dict[str, Any]:
    return make_settings(
        toy_corpus, toy_corpus / "none", max_steps=STEPS["sample"], save_every=3, average_every=2,
        crop="shortest", valid_every=20,
    )  # fmt: skip


@pytest.fixture(scope="session")
def whole(toy_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run of a sample."""
    from harness import Trial

    trial = Trial(toy_settings, tmp_path_factory.mktemp("whole"))
    trial.complete()
    return trial.exp


@pytest.fixture(scope="session")
def long_settings(toy_settings: dict[str, Any]) -> dict[str, Any]:
    return {**toy_settings, "max_steps": STEPS["campaign"], "save_every": 4, "valid_every": 100}


@pytest.fixture(scope="session")
def long_whole(long_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run of the campaign: 200 updates."""
    from harness import Trial

    trial = Trial(long_settings, tmp_path_factory.mktemp("long"))
    trial.complete()
    return trial.exp
