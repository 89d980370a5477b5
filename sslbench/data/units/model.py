"""A fitted set of units: centroids and the normalisation that goes before them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.io import atomic_path, read_yaml, sha256_file, write_yaml

WEIGHTS, FACTS = "units.safetensors", "units.yaml"
NORMALIZE = ("utterance", "global", "none")


@dataclass
class UnitModel:
    """Nearest-centroid units."""

    centroids: torch.Tensor
    """(K, D) float32, in the normalised space."""
    mean: torch.Tensor
    """(D,) subtracted from every frame (zeros unless normalised globally)."""
    scale: torch.Tensor
    """(D,) divides every frame (ones unless normalised globally)."""
    normalize: str
    """"utterance" (each clip to zero mean, unit variance), "global" or "none"."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Feature, checkpoint, seed, hours, inertia: what `units.yaml` says."""

    @property
    def clusters(self) -> int:
        """How many units there are."""
        return len(self.centroids)

    def assign(self, frames: torch.Tensor) -> torch.Tensor:
        """The unit of each frame of one clip: (F, D) → (F,) int64."""
        if frames.shape[-1] != self.centroids.shape[1]:
            raise SslbenchError(
                f"units: made for {self.centroids.shape[1]} dimensions, features have {frames.shape[-1]}; "
                "use the feature and checkpoint that units.yaml names"
            )
        points = normalized(frames, self.normalize, self.mean, self.scale)
        # |x-c|² without |x|², which does not move the minimum
        distance = (self.centroids**2).sum(1) - 2 * points @ self.centroids.T  # (F, K)
        return distance.argmin(dim=1)

    def save(self, folder: Path | str) -> None:
        """Write the folder; `units.yaml` with the checksum comes last and makes it valid."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file({"centroids": self.centroids, "mean": self.mean, "scale": self.scale}, temporary)
        self.facts = {**self.facts, "normalize": self.normalize, "sha256": sha256_file(folder / WEIGHTS)}
        write_yaml(folder / FACTS, self.facts)

    @classmethod
    def load(cls, folder: Path | str) -> UnitModel:
        """Read and verify a folder.

        Raises:
            SslbenchError: the folder holds no units.
            CorruptFileError: the centroids do not match their checksum.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        if not (folder / FACTS).is_file() or not (folder / WEIGHTS).is_file():
            raise SslbenchError(
                f"{folder}: holds no units; make them with 'sslbench units fit --out {folder}'"
            )
        facts = read_yaml(folder / FACTS)
        if sha256_file(folder / WEIGHTS) != facts.get("sha256"):
            raise CorruptFileError(
                f"{folder / WEIGHTS}: does not match its sha256 in {FACTS}; fit the units again"
            )
        tensors = load_file(folder / WEIGHTS)
        return cls(tensors["centroids"], tensors["mean"], tensors["scale"], facts["normalize"], facts)


def normalized(frames: torch.Tensor, how: str, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Frames of one clip as k-means sees them, (F, D)."""
    return standardized(frames) if how == "utterance" else (frames - mean) / scale


def standardized(frames: torch.Tensor) -> torch.Tensor:
    """Frames of one clip at zero mean and unit variance over its length, (F, D)."""
    centred = frames - frames.mean(0)
    # a one-frame clip has no variance; the floor keeps it at zero instead of NaN
    return centred / centred.square().mean(0).sqrt().clamp_min(1e-5)
