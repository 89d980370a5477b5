"""Every pretraining configuration of every recipe makes two updates at its full size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sslbench.pretrain import plan

REPO = Path(__file__).resolve().parents[2]
CONFS = sorted(REPO.glob("egs/*/*/conf/pretrain_*.yaml"))


def _name(path: Path) -> str:
    return f"{path.parts[-4]}-{path.stem}"


def _needs_gib(path: Path) -> float:
    """Weights, gradients and two moments in fp32, and as much again for temporaries."""
    return {"base": 3.5, "large": 11.0}.get(path.stem.rsplit("_", 1)[-1], 0.5)


def test_every_recipe_has_a_configuration_for_each_of_its_models() -> None:
    assert {path.parts[-4] for path in CONFS} >= {"mini", "mini_librispeech", "librispeech", "librilight"}
    for run in REPO.glob("egs/*/ssl1/run.sh"):
        named = run.read_text().split('--upstream "')[1].split('"')[0].split()
        for family in named:
            assert (run.parent / "conf" / f"pretrain_{family}.yaml").is_file(), f"{run}: {family}"


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFS, ids=_name)
def test_two_updates_at_full_size(path: Path) -> None:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        free = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
        if int(free.split()[1]) / 2**20 < _needs_gib(path):
            pytest.skip(f"needs {_needs_gib(path)} GiB of free memory")
    # fp32: not every processor has fast bf16
    config = replace(plan.read_config(path), precision="fp32", device="cpu")
    measured = plan.measure(config, batch_s=1.0, updates=1)
    assert measured.audio_s_per_s > 0
    size = path.stem.rsplit("_", 1)[-1]
    expected = {"base": (80e6, 100e6), "large": (300e6, 320e6)}.get(size, (0.5e6, 3e6))
    assert expected[0] < measured.params_total < expected[1]
