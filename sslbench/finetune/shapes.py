"""Sizes of heads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TransducerShape:
    """Sizes of a transducer; k2SSL's are 512, 512 and 2."""

    predictor_dim: int = 128
    """Width of the symbols' embedding."""
    joiner_dim: int = 128
    """Width in which frames and contexts are added."""
    context: int = 2
    """Symbols that the predictor sees."""
