"""`sslbench doctor`: what is installed, what is missing, how to get it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import site
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sslbench.cli._parser import Parser

EXAMPLES = """examples:
  sslbench doctor
  sslbench doctor --json
"""

# package -> (version the suite is tested with, what brings it)
PACKAGES = {
    "torch": ("2.8.0", ""),
    "torchaudio": ("2.8.0", ""),
    "lhotse": ("1.33.0", ""),
    "numpy": ("2.4.6", ""),
    "kaldialign": ("0.12.0", ""),
    "s3prl": ("0.4.18", "[s3prl]"),
    "espnet": ("202511", "[espnet]"),
    "transformers": ("5.23.0", "[hf]"),
    "espeakng-loader": ("0.2.4", "[mini]"),
    "sentencepiece": ("0.2.0", "[asr]"),
    "peft": ("0.21.2", "[peft]"),
    "flashlight-text": ("0.0.7", "[lm]"),
    "matplotlib": ("3.11.2", "[report]"),
    "jinja2": ("3.1.6", "[report]"),
    "tensorboard": ("2.21.0", "[report]"),
}


@dataclass
class Finding:
    """One line of the doctor's report."""

    name: str
    state: str  # "ok", "differs", "missing", "optional"
    found: str
    advice: str = ""


def main(argv: list[str]) -> int:
    """Report the environment. Returns 1 when something the core needs is missing."""
    parser = Parser(
        prog="sslbench doctor",
        description="What is installed, what is missing, how to get it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    findings = [_python(), *(_package(name) for name in PACKAGES), _k2(), _gpu(), _hook(), _disk()]
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print_table(findings)
    core = {name for name, (_, extra) in PACKAGES.items() if not extra}
    return int(any(f.state == "missing" and f.name in core for f in findings))


def _python() -> Finding:
    return Finding("python", "ok", platform.python_version())  # pip refuses what is too old


def _package(name: str) -> Finding:
    tested, extra = PACKAGES[name]
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "missing", "-", f"pip install 'sslbench{extra}' -c constraints.txt")
    if found.split("+")[0] == tested:
        return Finding(name, "ok", found)
    return Finding(name, "differs", found, f"tested with {tested}")


def _k2() -> Finding:
    unusable = _why_not_k2()
    if unusable is None:
        return Finding("k2", "ok", version("k2"))
    # k2 wheels are built per torch and Python version and are not on PyPI for a current torch
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    torch_version = version("torch").split("+")[0] if importlib.util.find_spec("torch") else "2.8.0"
    wheel = f"the wheel for torch{torch_version} and {python} from k2-fsa.github.io/k2 (not on PyPI)"
    if unusable == "not installed":
        return Finding("k2", "optional", "-", wheel)
    return Finding(
        "k2", "differs", version("k2"), f"{unusable}; torch is used in its place until you install {wheel}"
    )


def _why_not_k2() -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "not installed"
    from sslbench.integrations.k2 import why_not

    return why_not()


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("gpu", "missing", "-", "install torch first")
    import torch

    if not torch.cuda.is_available():
        return Finding("gpu", "optional", f"none; {os.cpu_count()} CPU cores", "everything runs on a CPU too")
    return Finding("gpu", "ok", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")


def _hook() -> Finding:
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    for folder in map(Path, folders):
        if (folder / "sslbench_s3prl.pth").is_file():
            return Finding("s3prl hook", "ok", str(folder / "sslbench_s3prl.pth"))
    return Finding(
        "s3prl hook", "missing", "-", "pip install sslbench again, or call sslbench.register() before s3prl"
    )


def _disk() -> Finding:
    stat = os.statvfs(Path.cwd())
    free_gib = stat.f_bavail * stat.f_frsize / 2**30
    state, advice = (
        ("ok", "") if free_gib > 5 else ("differs", "a demo needs about 1 GiB, the environment 7 GB")
    )
    return Finding("disk here", state, f"{free_gib:.0f} GiB free", advice)


def _print_table(findings: list[Finding]) -> None:
    from sslbench.report.terminal import print_table

    lines = [[f.name, f.state, f.found, f.advice] for f in findings]
    print_table("", ["what", "state", "found", "advice"], lines, text_columns=4)
