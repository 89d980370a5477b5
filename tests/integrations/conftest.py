"""A third-party upstream package made on the fly, as someone outside this repository would write it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGIN = '''
"""A toy upstream: one strided convolution, three layers, dropout that must never act when frozen."""
import torch
from sslbench.nn.upstream import SSLModel, Upstream

class Toy(SSLModel):
    family = "toy"
    def __init__(self):
        super().__init__()
        self.front = torch.nn.Conv1d(1, 24, 320, stride=320)
        self.dropout = torch.nn.Dropout(0.5)
    def hidden_states(self, audio, audio_lens):
        audio = torch.nn.functional.pad(audio, (0, -audio.shape[1] % 320))
        first = self.dropout(self.front(audio[:, None]).transpose(1, 2))
        frames = torch.arange(first.shape[1])
        valid = frames < -(-audio_lens // 320)[:, None]
        return [(first * gain).masked_fill(~valid[..., None], 0) for gain in (1.0, 2.0, -1.0)]

def toy_plugin(ckpt=None, model_config=None, refresh=False, frozen=True, **kw):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Toy()
    if ckpt:
        model.front.weight.data.fill_(float(open(ckpt).read()))
    return Upstream(model, "random", None, frozen)
'''


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that holds the package `toy_plugin` and its entry point."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "toy_plugin.py").write_text(PLUGIN)
    info = folder / "toy_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sslbench.upstreams]\ntoy_plugin = toy_plugin:toy_plugin\n")
    return folder


@pytest.fixture(scope="session")
def hook_works() -> None:
    """Fail, with the mend, where sslbench is not installed: a hook that is missing must not pass unseen."""
    code = "import sys; raise SystemExit('sslbench.integrations.s3prl._hook' not in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key != "SSLBENCH_NO_HOOK"}
    if subprocess.run([sys.executable, "-c", code], env=environment).returncode:
        pytest.fail("sslbench is not installed here with its start-up hook: run 'pip install -e .'")


@pytest.fixture
def python(plugin: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run code or arguments in a fresh Python that can see the plugin, in an empty folder."""

    def run(*words: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        arguments = ["-c", code] if code else list(words)
        variables = {**os.environ, "PYTHONPATH": str(plugin), "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=1200,
        )

    return run
