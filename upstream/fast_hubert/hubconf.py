"""Names of this family for s3prl, torch.hub and the registry."""

from pathlib import Path

from sslbench.nn.upstream import upstream_entry
from sslbench.upstream.fast_hubert.model import FastHubert

CONFIGS = Path(__file__).parent / "configs"

fast_hubert_tiny = upstream_entry(FastHubert, CONFIGS / "fast_hubert_tiny.yaml")
fast_hubert_base = upstream_entry(FastHubert, CONFIGS / "fast_hubert_base.yaml")
fast_hubert = fast_hubert_base
