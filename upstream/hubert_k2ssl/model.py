"""HuBERT: k2SSL's optimized form (cross-entropy) and the original (cosine objective), one class.

Sources: HuBERT arXiv 2106.07447; k2SSL arXiv 2411.17100 and icefall `egs/librispeech/SSL/hubert`.
"""

from __future__ import annotations

from typing import ClassVar

from sslbench.nn.masked_transformer import MaskedTransformer
from sslbench.upstream.hubert_k2ssl.config import HubertConfig


class Hubert(MaskedTransformer):
    """Waveform CNN, Transformer and a masked-unit head; state-dict keys and shapes as in k2SSL."""

    config_class: ClassVar[type[HubertConfig]] = HubertConfig
    family: ClassVar[str] = "hubert_k2ssl"


MODEL = Hubert
