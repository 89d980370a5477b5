"""What a family says about other toolkits: `CONVERTER` in `upstream/<family>/convert.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.convert.source import Source


@dataclass
class Imported:
    """A foreign checkpoint in a family's own terms."""

    config: dict[str, Any]
    """The family's settings that differ from its defaults."""
    state: dict[str, torch.Tensor]
    """Under the family's names; loaded strictly."""
    left_out: list[str] = field(default_factory=list)
    """Names of tensors that the family has no place for, such as a recognizer's head."""
    assumed: dict[str, Any] = field(default_factory=dict)
    """Settings that neither checkpoint nor command line states, and that matter."""


@dataclass(frozen=True)
class Converter:
    """How a family reads and writes other toolkits' checkpoints."""

    recognises: Callable[[Source], bool]
    """Whether a checkpoint is of this family, by its names."""
    readers: Mapping[str, Callable[[Source], Imported]]
    """By format: settings and renamed weights. Raises `SslbenchError` for what the family cannot be."""
    writers: Mapping[str, Callable[[UpstreamCheckpoint, Path], list[str]]] = field(default_factory=dict)
    """By format: write a folder, return the names of tensors without a place in it."""
