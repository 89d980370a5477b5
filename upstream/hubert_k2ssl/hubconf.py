"""Names of this family for s3prl, torch.hub and the registry."""

from pathlib import Path

from sslbench.nn.upstream import upstream_entry
from sslbench.upstream.hubert_k2ssl.model import Hubert

CONFIGS = Path(__file__).parent / "configs"

hubert_k2ssl_tiny = upstream_entry(Hubert, CONFIGS / "hubert_k2ssl_tiny.yaml")
hubert_k2ssl_base = upstream_entry(Hubert, CONFIGS / "hubert_k2ssl_base.yaml")
hubert_k2ssl_large = upstream_entry(Hubert, CONFIGS / "hubert_k2ssl_large.yaml")
hubert_orig_base = upstream_entry(Hubert, CONFIGS / "hubert_orig_base.yaml")
hubert_orig_large = upstream_entry(Hubert, CONFIGS / "hubert_orig_large.yaml")
hubert_k2ssl = hubert_k2ssl_base
