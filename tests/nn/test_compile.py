"""torch.compile changes no loss: the option `compile` of pretraining stands on this."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sslbench.nn.upstream import SSLModel, Upstream
from sslbench.profile.workload import Workload, training_loss
from sslbench.upstreams import build_model

ONE_STACK = {
    "downsampling": [1], "layers": [1], "dims": [64], "unmasked_dims": [64], "ffn_dims": [64], "heads": [4],
    "kernels": [7],
}  # fmt: skip
MODELS = [("hubert_k2ssl_tiny", {"layers": 1}), ("zipformer_tiny", ONE_STACK)]


def losses(model: SSLModel, training: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    compute = training_loss(Upstream(model, "random", frozen=False), Workload(2, 0.5))
    model.train(training)
    generator: Any = model.mask_generator
    generator.manual_seed(0)
    torch.manual_seed(0)
    model.zero_grad()
    loss = compute()
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_compiled_is_equal(name: str, change: dict[str, Any], training: bool, backend: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = build_model(name, change)
    loss, gradients = losses(model, training)
    model.compile(backend=backend)
    torch._dynamo.utils.counters.clear()
    compiled, found = losses(model, training)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
    torch.testing.assert_close(compiled, loss, rtol=1e-5, atol=0)
    for a, b in zip(found, gradients, strict=True):
        assert float((a - b).abs().max()) <= 1e-4 * float(b.abs().max()) + 1e-7


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), MODELS)
def test_traced_training_is_the_same(name: str, change: dict[str, Any]) -> None:
    """Traced and replayed operator by operator, so that even random decisions and dropout are the same."""
    assert_compiled_is_equal(name, change, training=True, backend="eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile's CPU code needs a C++ compiler")
@pytest.mark.parametrize(
    ("name", "change"), MODELS[1:]
)  # the one with most to go wrong; compiling takes a minute
def test_compiled_code_gives_the_same_loss(
    name: str, change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the common cache may hold what a killed process left half written
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert_compiled_is_equal(name, change, training=False, backend="inductor")


def test_the_compiler_is_not_loaded_before_it_is_asked_for() -> None:
    """It takes 100 MB and a second."""
    code = (
        "import sys; from sslbench.upstreams import build_model; build_model('hubert_k2ssl_tiny', {}); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
