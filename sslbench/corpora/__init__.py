"""Corpora: one module (or package) each, with `prepare(root, out, options)`; helpers start with `_`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sslbench.errors import SslbenchError

T = TypeVar("T")


@dataclass(frozen=True)
class PrepareOptions:
    """What `sslbench data prepare` hands to a corpus."""

    preset: str | None = None
    """Size of a generated corpus; None takes the corpus's default."""
    seed: int = 0
    """Seed of everything that is drawn."""
    jobs: int = 1
    """Recordings worked on at a time; results never depend on it."""
    limit: int | None = None
    """Keep at most this many cuts per split (for trials)."""

    def refuse_preset(self, corpus: str) -> None:
        """For corpora of one size. Raises `SslbenchError` when a preset was asked for."""
        if self.preset is not None:
            raise SslbenchError(f"{corpus}: has no presets (got {self.preset!r}); leave out --preset")

    def limited(self, items: Sequence[T], name: Callable[[T], str]) -> list[T]:
        """At most `limit` items in their order, chosen by their names' hashes so that all parts are met."""
        if self.limit is None or len(items) <= self.limit:
            return list(items)
        lots = sorted(items, key=lambda item: hashlib.sha256(name(item).encode()).digest())
        chosen = {name(item) for item in lots[: self.limit]}
        return [item for item in items if name(item) in chosen]
