"""What `pip install .` and `pip install -e .` put into site-packages: the hook runs in both."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PTH = "sslbench_s3prl.pth"
# what a build needs; copied, so that no build folder appears in the checkout
PARTS = ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", PTH, "sslbench", "upstream", "downstream")
PROBE = (
    "import sys; print('hook', 'sslbench.integrations.s3prl._hook' in sys.modules, 'torch' in sys.modules);"
    "import sslbench.registry as r; print(*(e.name for e in r.upstreams())); print(r.__file__)"
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for part in (*PARTS, "README.md", "LICENSE"):
        if (REPO / part).is_dir():
            shutil.copytree(REPO / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif (REPO / part).is_file():
            shutil.copy(REPO / part, folder / part)
    return folder


def build(source: Path, kind: str, target: Path) -> Path:
    """Build offline with this environment's setuptools, through the interface that pip uses."""
    code = f"import sys, setuptools.build_meta as b; b.{kind}(sys.argv[1])"
    target.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.mark.parametrize("kind", ["build_wheel", "build_editable"])
def test_the_hook_is_installed_recorded_and_runs(source: Path, kind: str, tmp_path: Path) -> None:
    pip = pytest.importorskip("pip")
    wheel = build(source, kind, tmp_path / "dist")
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(PTH)
        record = archive.read(next(n for n in archive.namelist() if n.endswith("RECORD"))).decode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    assert f"{PTH},sha256={digest},{len(data)}" in record.splitlines()

    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    (packages,) = environment.glob("lib/python*/site-packages")
    # third-party packages come from this environment; its own .pth files are not read through this one
    (packages / "outer.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    python = environment / "bin" / "python"
    install = [str(python), "-m", pip.__name__, "install", "-q", "--no-deps", "--no-index", str(wheel)]
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SSLBENCH_NO_HOOK")}
    subprocess.run(install, check=True, env=variables, cwd=tmp_path)
    done = subprocess.run(
        [str(python), "-c", PROBE], capture_output=True, text=True, env=variables, cwd=tmp_path
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "hook True False", done.stdout + done.stderr
    assert {"zipformer_tiny", "hubert_k2ssl_tiny"} <= set(lines[1].split()), "presets ship with the package"
    where = source if kind == "build_editable" else packages
    assert Path(lines[2]).is_relative_to(where.resolve())
    remove = [str(python), "-m", "pip", "uninstall", "-q", "-y", "sslbench"]
    subprocess.run(remove, check=True, env=variables, cwd=tmp_path)
    assert not (packages / PTH).exists(), "uninstalling leaves no hook behind"
