"""Counters are read as they count: packages only, wrapped once, and never guessed."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from sslbench.profile import energy


def domain(root: Path, name: str, label: str, uj: int, range_uj: int = 1_000_000_000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(label + "\n")
    (folder / "energy_uj").write_text(f"{uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


def test_packages_add_up_and_domains_inside_or_around_them_do_not_count(tmp_path: Path) -> None:
    packages = [domain(tmp_path, f"intel-rapl:{n}", f"package-{n}", 10) for n in (0, 1)]
    others = [domain(tmp_path, "intel-rapl:0:0", "core", 0), domain(tmp_path, "intel-rapl:2", "psys", 0)]
    counter = energy.open_counter(powercap=tmp_path)
    assert not isinstance(counter, str)
    assert counter.read_j() == 0
    for folder in packages:
        (folder / "energy_uj").write_text("2500010")
    for folder in others:
        (folder / "energy_uj").write_text("900000000")
    assert counter.read_j() == pytest.approx(5.0)


def test_a_counter_that_wraps_round_goes_on(tmp_path: Path) -> None:
    folder = domain(tmp_path, "intel-rapl:0", "package-0", 9_000_000, range_uj=10_000_000)
    counter = energy.open_counter(powercap=tmp_path)
    assert not isinstance(counter, str)
    (folder / "energy_uj").write_text("500000")
    assert counter.read_j() == pytest.approx(1.5)


def test_energy_of_a_call_is_what_the_counter_saw() -> None:
    class Clockwork:
        method = "clockwork"
        joules = 0.0

        def read_j(self) -> float:
            return self.joules

    counter = Clockwork()

    def run() -> None:
        counter.joules += 3.0

    assert energy.measure(run, counter, at_least_s=0.01).joules_per_call == pytest.approx(3.0)


def test_absence_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = energy.open_counter(powercap=tmp_path)
    assert isinstance(found, str)
    assert found.startswith("not measurable here: no RAPL")
    domain(tmp_path, "intel-rapl:0", "package-0", 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("many")
    assert "cannot be read" in str(energy.open_counter(powercap=tmp_path))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert str(energy.open_counter("cuda")).startswith("not measurable here: NVML")


def test_gpu_counter_is_read_in_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    fake = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: asked.append(index) or index,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 7000,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    counter = energy.open_counter("cuda:1")
    assert not isinstance(counter, str)
    assert (counter.read_j(), asked) == (7.0, [1])
