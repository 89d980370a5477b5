"""Corpora: one module (or package) each, with `prepare(root, out, options)`; helpers start with `_`."""

from __future__ import annotations

from dataclasses import dataclass

from sslbench.errors import SslbenchError


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
