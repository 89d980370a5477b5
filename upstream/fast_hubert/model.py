"""Fast-HuBERT: filterbank input at 25 Hz, cross-entropy, intermediate-layer supervision.

Source: arXiv 2309.13860 and its code, yanghaha0908/FastHuBERT (d1abaee).
"""

from __future__ import annotations

from typing import ClassVar

from sslbench.nn.masked_transformer import MaskedTransformer
from sslbench.upstream.fast_hubert.config import FastHubertConfig


class FastHubert(MaskedTransformer):
    """Filterbank, GLU convolutions, HuBERT's Transformer and a head on each supervised layer."""

    config_class: ClassVar[type[FastHubertConfig]] = FastHubertConfig
    family: ClassVar[str] = "fast_hubert"


MODEL = FastHubert
