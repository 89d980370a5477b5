"""Where a number came from: code, packages, machine."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

PACKAGES = ("sslbench", "torch", "torchaudio", "lhotse", "numpy", "s3prl", "espnet", "k2", "transformers")
NOT_CODE = ":(top,exclude,glob)egs/**/RESULTS.md"


class Provenance(BaseModel):
    """Stamped on every result row; a row that lacks a field is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    created_utc: str
    commit: str  # of the sslbench checkout; "installed" when it runs from a wheel
    dirty: bool
    packages: dict[str, str]
    python: str
    platform: str
    cpu: str
    cpu_count: int
    gpu: str  # "none" without one
    torch_threads: int
    config_sha256: str
    data_sha256: str
    seed: int
    command: str


def collect(config_sha256: str, data_sha256: str, seed: int) -> Provenance:
    """The provenance of this process, now."""
    import torch

    commit, dirty = _git_state()
    return Provenance(
        created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        commit=commit,
        dirty=dirty,
        packages=versions(PACKAGES),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu_name(),
        cpu_count=os.cpu_count() or 1,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        torch_threads=torch.get_num_threads(),
        config_sha256=config_sha256,
        data_sha256=data_sha256,
        seed=seed,
        command=" ".join([_program(), *sys.argv[1:]]),
    )


def machine(gpu: bool) -> str:
    """What this process computes on: the GPU's name, or the CPU's with the number of torch threads."""
    import torch

    if gpu:
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'' if threads == 1 else 's'}"


def _program() -> str:
    """What was run: `sslbench`, also as `python -m sslbench`, or another script's name."""
    path = Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name


def _git_state() -> tuple[str, bool]:
    """Commit and dirty flag of the package's own checkout, whatever the working directory is.

    A recipe's RESULTS.md does not count: reports write it, and no result depends on it.
    """

    def git(*words: str) -> str:
        here = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # an installed copy inside somebody else's repository is not ours to describe
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", NOT_CODE)
        return git("rev-parse", "HEAD"), bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return "installed", False


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
