"""What a probe task's `config.yaml` says: the official protocol, its source, and smaller tiers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sslbench import config
from sslbench.errors import SslbenchError
from sslbench.io import read_yaml
from sslbench.tiers import TIERS


@dataclass
class Protocol:
    """How one task is trained and scored: `full` is the official protocol, other tiers differ from it."""

    source: str = ""
    """Where the official values come from."""
    steps: int = 200_000
    """Optimizer updates."""
    batch_clips: int = 32
    """Clips per update; the official micro-batches times their accumulation."""
    lr_grid: list[float] = field(default_factory=lambda: [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
    """Learning rates; the best on dev is reported."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """torch's, with its defaults but for the learning rate."""
    grad_clip: float = 1.0
    """Gradient norm bound."""
    eval_every: int = 4_000
    """Updates between dev evaluations; the best state on dev is kept."""
    max_train_clip_s: float | None = None
    """Longer training clips are cut to this."""
    early_stop: bool = False
    """Stop a grid point whose best dev score is worse than what the leader had at a quarter of the steps
    so far (from a quarter of all steps on); never in tier `full`."""
    train_hours: float | None = None
    """Use at most this much, spread over the speakers by a seeded choice; None uses all."""
    dev_hours: float | None = None
    """As `train_hours`, for dev."""
    test_hours: float | None = None
    """As `train_hours`, for test."""

    def hours(self, part: str) -> float | None:
        """The limit of "train", "dev" or "test"."""
        limits = {"train": self.train_hours, "dev": self.dev_hours, "test": self.test_hours}
        return limits[part]


@dataclass
class ProbeConfig:
    """A probe task's `config.yaml`."""

    official: dict[str, Any] = field(default_factory=dict)
    """The protocol's values."""
    tiers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Differences per tier: `smoke` and `short`."""
    data: dict[str, Any] = field(default_factory=dict)
    """The task's own settings, for example split names."""


def read_config(path: Path, tier: str) -> tuple[Protocol, dict[str, Any]]:
    """The protocol of a tier and the task's own settings.

    Raises:
        SslbenchError: unknown tier or key, naming the file.
    """
    if tier not in TIERS:
        raise SslbenchError(f"no tier {tier!r}; known: {', '.join(TIERS)}")
    whole = config.build(ProbeConfig, read_yaml(path), str(path))
    changes = whole.tiers.get(tier, {}) if tier != "full" else {}
    return config.build(Protocol, {**whole.official, **changes}, f"{path} ({tier})"), whole.data
