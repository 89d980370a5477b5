"""The upstream checkpoint: a folder with model.safetensors, config.yaml and card.yaml, checksummed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.io import atomic_path, read_yaml, sha256_file, write_yaml

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.yaml", "card.yaml"


@dataclass
class UpstreamCheckpoint:
    """Weights with everything needed to rebuild the model and to judge where it came from."""

    family: str
    """Folder name under `upstream/`."""
    config: dict[str, Any]
    """The family's settings, complete."""
    state: Mapping[str, torch.Tensor]
    """`state_dict` of the model."""
    weights: str = "trained"
    """"trained" here or "imported" from elsewhere."""
    card: dict[str, Any] = field(default_factory=dict)
    """Training data, steps, source, licence: shown in reports."""
    weights_sha256: str | None = None
    """Filled by `save` and `load`."""

    def save(self, folder: Path | str) -> None:
        """Write the folder; `card.yaml`, which holds the checksum, comes last and makes it valid."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file({name: t.detach().cpu().contiguous() for name, t in self.state.items()}, temporary)
        self.weights_sha256 = sha256_file(folder / WEIGHTS)
        write_yaml(folder / CONFIG, {"family": self.family, "model": self.config})
        write_yaml(
            folder / CARD, {"weights": self.weights, "weights_sha256": self.weights_sha256, **self.card}
        )

    @classmethod
    def load(cls, folder: Path | str) -> UpstreamCheckpoint:
        """Read and verify a folder (or the path of its weights file).

        Raises:
            SslbenchError: missing folder or file.
            CorruptFileError: the weights do not match their checksum, or a description lacks an entry.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        if folder.name == WEIGHTS:
            folder = folder.parent
        missing = [name for name in (WEIGHTS, CONFIG, CARD) if not (folder / name).is_file()]
        if missing:
            raise SslbenchError(
                f"{folder}: is no upstream checkpoint (lacks {', '.join(missing)}); make one with "
                "'sslbench export EXP --out DIR', or from another toolkit's with 'sslbench convert'"
            )
        settings, card = (
            _mapping(folder / name, keys)
            for name, keys in ((CONFIG, ("family", "model")), (CARD, ("weights",)))
        )
        digest = sha256_file(folder / WEIGHTS)
        if digest != card.get("weights_sha256"):
            raise CorruptFileError(
                f"{folder / WEIGHTS}: does not match its sha256 in {CARD}; export it again"
            )
        try:
            state = load_file(folder / WEIGHTS)
        except SafetensorError as error:
            raise CorruptFileError(f"{folder / WEIGHTS}: damaged ({error})") from None
        return cls(settings["family"], settings["model"], state, card["weights"], card, digest)


def _mapping(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    content = read_yaml(path)
    lacking = [key for key in keys if not isinstance(content, dict) or key not in content]
    if lacking:
        raise CorruptFileError(f"{path}: lacks {', '.join(lacking)}; export or convert it again")
    return dict(content)


def load_strict(model: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Load every tensor or none. Raises `SslbenchError` naming missing, unexpected and misshapen keys."""
    own = model.state_dict()
    problems = [f"missing {key}" for key in own if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise SslbenchError(f"{where}: does not fit the model: {shown}")
    model.load_state_dict(dict(state))
