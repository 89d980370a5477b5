"""MelHuBERT: HuBERT's Transformer on stacked log-mel frames, nothing convolved or learnt before it.

Source: arXiv 2211.09944 and its code, nervjack2/MelHuBERT.
"""

from __future__ import annotations

from typing import ClassVar

from sslbench.nn.masked_transformer import MaskedTransformer
from sslbench.upstream.melhubert.config import MelHubertConfig


class MelHubert(MaskedTransformer):
    """Stacked log-mel frames, a projection, HuBERT's Transformer and a linear head."""

    config_class: ClassVar[type[MelHubertConfig]] = MelHubertConfig
    family: ClassVar[str] = "melhubert"


MODEL = MelHubert
