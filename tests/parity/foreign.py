"""Foreign checkpoints through `sslbench convert`, and their features against a reference's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from sslbench import check, cli
from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.upstreams import load_upstream

LIMIT = 1e-4
WAVS = [check.clip(samples) * 3 for samples in (16000, 9000, 5000)]


def convert(source: Path, out: Path, *arguments: str) -> Any:
    """Through the command line, as users do; the family's upstream with the result."""
    assert cli.main(["convert", *arguments, str(source), "--out", str(out)]) == 0
    return load_upstream(UpstreamCheckpoint.load(out).family, ckpt=out)


def states_of(upstream: Any, wavs: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        states: list[torch.Tensor] = upstream(wavs)["hidden_states"]
    return states


def error_against(upstream: Any, reference: list[torch.Tensor], wav: torch.Tensor) -> float:
    """Largest difference of any layer: the clip alone, and beside a longer one, against the original."""
    beside = torch.cat([wav, check.clip(7000)])
    worst = 0.0
    for states in (states_of(upstream, [wav]), states_of(upstream, [beside, wav])):
        assert len(states) == len(reference)
        for ours, theirs in zip(states, reference, strict=True):
            frames = theirs.shape[1]
            worst = max(worst, float((ours[-1:, :frames, : theirs.shape[2]] - theirs).abs().max()))
    return worst


def disturb(upstream: Any) -> None:
    """One bias of the middle layer or stack, which LayerNorm does not undo."""
    layers = upstream.model.encoder
    layer = layers.layers[1] if hasattr(layers, "layers") else layers.encoders[0].layers[0]
    module = layer.fc1 if hasattr(layer, "fc1") else layer.feed_forward2.in_proj
    with torch.no_grad():
        module.weight[0] += 0.5


def expect_parity(upstream: Any, reference: list[torch.Tensor], wav: torch.Tensor) -> None:
    assert error_against(upstream, reference, wav) <= LIMIT
    disturb(upstream)
    assert error_against(upstream, reference, wav) > LIMIT  # the control: one disturbed weight is seen


def shaken(model: Any) -> Any:
    """No bias stays 0 and no scale 1, so that an omitted term shows up."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return model.eval()


def k2ssl_file(folder: Path, where: Path, **others: Any) -> Path:
    """As icefall's save_checkpoint writes it: weights, their average, and the arguments beside them."""
    state = load_file(folder / "state.safetensors")
    args = json.loads((folder / "meta.json").read_text())["args"]
    average = {key: value * 0.5 for key, value in state.items()}
    content = {"model": state, "model_avg": average, "optimizer": {"state": {}}, "exp_dir": Path("exp/a")}
    content |= {"env_info": {"torch-version": torch.__version__}, "batch_idx_train": 7}
    torch.save({**content, **args, **others}, where / "epoch-1.pt")
    return where / "epoch-1.pt"


def extracted(family: str, wav: torch.Tensor, where: Path) -> list[np.ndarray[Any, Any]]:
    """The arrays that `sslbench extract` writes for a converted checkpoint in `where/ours`."""
    import soundfile

    soundfile.write(where / "a.wav", wav.numpy(), 16000, subtype="FLOAT")
    arguments = [str(where / "a.wav"), "--ckpt", str(where / "ours"), "--out", str(where / "f.npz")]
    assert cli.main(["extract", family, *arguments]) == 0
    arrays = np.load(where / "f.npz")
    return [arrays[f"a.layer{layer:02d}"] for layer in range(len(arrays.files))]
