"""How much a result claims."""

from __future__ import annotations

from typing import Literal, get_args

Tier = Literal["smoke", "short", "full"]
"""`full` is the official protocol, the others differ from it."""
TIERS: tuple[Tier, ...] = get_args(Tier)
"""In rising order."""
