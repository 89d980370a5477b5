"""Settings of the HuBERT family; the defaults are k2SSL's optimized HuBERT Base."""

from __future__ import annotations

from dataclasses import dataclass

from sslbench.nn.masked_transformer import MaskedTransformerConfig


@dataclass
class HubertConfig(MaskedTransformerConfig):
    """One HuBERT: the shared settings and their defaults."""
