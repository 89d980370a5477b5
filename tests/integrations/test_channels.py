"""Every way that people load an upstream finds ours, with s3prl as it was published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip("s3prl")
pytestmark = pytest.mark.usefixtures("hook_works")

REPO = Path(__file__).resolve().parents[2]
OURS = "zipformer_tiny"

# one process for the channels that share `import s3prl.hub`, which takes about 15 s
CHANNELS = f"""
import json, torch, warnings
warnings.simplefilter("ignore")
import s3prl.hub
from s3prl.nn import S3PRLUpstream, Featurizer
from sslbench.upstreams import load_upstream
found = {{}}
wavs = [torch.randn(16000), torch.randn(9000)]
reference = load_upstream("{OURS}")(wavs)["hidden_states"]
same = lambda other: all(torch.allclose(a, b, atol=1e-5) for a, b in zip(reference, other, strict=True))
found["hub"] = same(s3prl.hub.{OURS}()(wavs)["hidden_states"])
found["options"] = "{OURS}" in s3prl.hub.options() and "{OURS}" in S3PRLUpstream.available_names(True)
upstream = S3PRLUpstream("{OURS}")
batch, lens = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), torch.tensor([16000, 9000])
with torch.no_grad():
    states, frames = upstream(batch, lens)
found["S3PRLUpstream"] = same(states) and frames[0].tolist() == [50, 29]
found["frozen"] = not any(m.training for m in upstream.upstream.modules())
pooled, _ = Featurizer(upstream)(states, frames)
found["Featurizer"] = list(pooled.shape) == [2, 50, reference[0].shape[-1]]
found["plugin"] = len(s3prl.hub.toy_plugin()(wavs)["hidden_states"]) == 3
found["crash_window"] = all(
    S3PRLUpstream.forward(upstream, torch.randn(1, n), torch.tensor([n]))[0][0].shape[1] == -(-n // 320)
    for n in (961, 1000, 1039))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_s3prl_finds_our_upstreams(python) -> None:
    done = python(code=CHANNELS)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert all(found.values()), found


RUNNER_CONFIG = {
    "runner": {
        "total_steps": 3,
        "gradient_clipping": 1,
        "gradient_accumulate_steps": 1,
        "log_step": 2,
        "eval_step": 100,
        "save_step": 3,
        "max_keep": 1,
        "eval_dataloaders": ["dev"],
        "evaluate_ratio": 0.02,
    },
    "optimizer": {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1.0e-3},
    "downstream_expert": {
        "datarc": {"train_batch_size": 2, "eval_batch_size": 2, "num_workers": 0},
        "modelrc": {"input_dim": 16},
    },
}


@pytest.mark.slow
def test_the_stock_runner_trains_and_evaluates(python, tmp_path) -> None:
    """The wheel's own run_downstream.py, untouched; then our launcher where the hook is switched off."""
    import s3prl

    script = Path(s3prl.__file__).parent / "run_downstream.py"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(RUNNER_CONFIG))
    train = ["-m", "train", "-u", OURS, "-d", "example", "-c", "config.yaml", "-p", "exp", "--device", "cpu"]
    done = python(str(script), *train)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "exp" / "states-3.ckpt").is_file()
    launcher = ["-m", "sslbench.integrations.s3prl.run_downstream"]
    evaluate = ["-m", "evaluate", "-e", "exp/states-3.ckpt", "--device", "cpu"]
    done = python(*launcher, *evaluate, SSLBENCH_NO_HOOK="1")
    assert done.returncode == 0, done.stderr[-3000:]


def test_torch_hub_loads_from_the_repository(python) -> None:
    code = (
        f"import sys, torch; sys.path.insert(0, {str(REPO)!r}); import hubconf; names = dir(hubconf)\n"
        f"model = torch.hub.load({str(REPO)!r}, {OURS!r}, source='local')\n"
        f"print('{OURS}' in names, 'toy_plugin' in names)\n"
        "print(model([torch.randn(700)])['hidden_states'][0].shape[1])"
    )
    done = python(code=code)
    assert done.stdout.strip().endswith("True True\n3"), done.stdout + done.stderr[-2000:]


def test_torch_hub_works_without_an_installation(python) -> None:
    """A bare checkout: site-packages' sslbench is hidden, the outer rooms are mapped by hubconf.py."""
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
        "[sys.modules.pop(m) for m in list(sys.modules) if m.split('.')[0] == 'sslbench']\n"
        f"import torch; model = torch.hub.load({str(REPO)!r}, {OURS!r}, source='local')\n"
        "import sslbench; print(sslbench.__file__, len(model([torch.randn(700)])['hidden_states']))"
    )
    done = python(code=code, SSLBENCH_NO_HOOK="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(str(REPO / "sslbench"))
