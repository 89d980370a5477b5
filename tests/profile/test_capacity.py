"""The search finds the longest batch with few measurements, and what it reports really fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sslbench.cli import main
from sslbench.errors import SslbenchError
from sslbench.profile import capacity, memory
from sslbench.profile.capacity import CLOSE_ENOUGH, free_memory, longest_batch, memory_limit
from sslbench.report import store

GIB = 2**30
SHAPES: dict[str, Callable[[int], float]] = {
    "line": lambda n: 1e9 + 3.7e7 * n,
    "bent upwards": lambda n: 1e9 + 2e7 * n + 3e5 * n**2,
    "bent downwards": lambda n: 1e9 + 4e8 * n**0.7,
    "stairs of an allocator": lambda n: 1e9 + 2.5e8 * (1 + n // 7),
    "buffer that only large batches need": lambda n: 1e9 + 2e7 * n + (2e9 if n > 40 else 0),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit_gib", [1.4, 4, 24, 139])
@pytest.mark.parametrize("dies", [True, False], ids=["runs out", "only exceeds"])
def test_the_longest_batch_is_found_in_a_dozen_measurements(shape: str, limit_gib: float, dies: bool) -> None:
    limit = int(limit_gib * GIB)
    highest = 0

    def peak(clips: int) -> int | None:
        nonlocal highest
        used = int(SHAPES[shape](clips))
        highest = max(highest, used)
        return None if dies and used > limit else used

    found = longest_batch(peak, limit)
    truth = max((n for n in range(1, 40_000) if SHAPES[shape](n) <= limit), default=0)
    assert found.clips <= truth
    assert found.clips >= CLOSE_ENOUGH * truth - 1
    assert found.clips == 0 or SHAPES[shape](found.clips) <= limit
    assert len(found.tried) <= capacity.MAX_TRIALS
    assert highest <= max(3 * limit, SHAPES[shape](capacity.MAX_GROWTH))
    assert found.audio_s == 5 * found.clips


def test_nothing_fits_into_less_than_one_clip_needs() -> None:
    assert longest_batch(lambda clips: None, GIB).clips == 0


def test_free_memory_heeds_a_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    assert free_memory(tmp_path, tmp_path) == 4000 * 1024
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path, tmp_path) == 4000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    assert free_memory(tmp_path, tmp_path) == 2_000_000
    with pytest.raises(SslbenchError, match="no MemAvailable; name --memory_gib"):
        free_memory(tmp_path / "nowhere")


def test_more_than_is_free_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SslbenchError, match=r"--memory_gib 1e\+06, but .* GiB are free on cpu; name less"):
        memory_limit("cpu", 1e6)
    assert main(["profile", "fbank", "--memory_gib", "4"]) == 2
    assert "belongs to --longest_batch" in capsys.readouterr().err


def test_an_update_beyond_the_limit_runs_out_instead_of_swapping() -> None:
    job = memory.Job("update", "hubert_k2ssl_tiny", None, threads=1, clips=400, limit_bytes=700 * 2**20)
    assert memory.update_peak_bytes(job) is None


def test_the_row_of_a_small_model_holds_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--no_speed", "--no_memory", "--longest_batch", "--memory_gib", "0.8", "--threads", "1"]
    assert main(["profile", "hubert_k2ssl_tiny", "fbank", "--results", str(tmp_path), *words]) == 0
    printed = capsys.readouterr()
    assert "within 0.8 GiB, peak resident set of a fresh process" in printed.out
    assert "no longest batch: fbank is not a pretraining model" in printed.out
    row = store.load(tmp_path / "hubert_k2ssl_tiny" / "profile.json")
    audio_s = row.metrics["longest_batch_audio_s"].value
    assert audio_s > 5
    assert f"update of {audio_s:g} s of audio" in printed.err
    assert "AdamW" in row.methods["longest_batch"]
    assert "longest_batch_audio_s" not in store.load(tmp_path / "fbank" / "profile.json").metrics
