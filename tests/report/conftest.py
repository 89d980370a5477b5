"""The invented benchmark, written once."""

from __future__ import annotations

from pathlib import Path

import fake_benchmark as fake
import pytest


@pytest.fixture(scope="session")
def benchmark_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results/ and exp/."""
    folder = tmp_path_factory.mktemp("benchmark")
    fake.write_benchmark(folder)
    return folder
