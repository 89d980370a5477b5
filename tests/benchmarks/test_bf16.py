"""The verdict of benchmarks/bf16.py: within the spread of the fp32 seeds or not, and nothing wider."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bf16.py"


@pytest.fixture
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_bf16", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("end", "status"), [(2.1, 0), (2.2, 0), (2.2001, 1), (1.9, 1)])
def test_exit_status_follows_the_spread_of_the_seeds(
    end: float, status: int, bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def train(name: str, seed: int, bf16: bool, steps: int, clips: int) -> list[float]:
        return [5.0] * (steps - 2) + [end if bf16 else 2.0 + seed / 20] * 2

    monkeypatch.setattr(bench, "train", train)
    arguments = ["bf16.py", "--models", "zipformer_tiny", "--steps", "20", "--out", str(tmp_path / "a.json")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert bench.main() == status
    shown = capsys.readouterr().out
    assert "fp32 seeds end at 2.000 2.050 2.100 2.150 2.200" in shown
    assert ("within their spread" in shown) is (status == 0)


def test_one_seed_has_no_spread(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bf16.py", "--seeds", "1"])
    with pytest.raises(SystemExit):
        bench.main()
