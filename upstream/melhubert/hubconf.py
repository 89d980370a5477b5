"""Names of this family for s3prl, torch.hub and the registry."""

from pathlib import Path

from sslbench.nn.upstream import upstream_entry
from sslbench.upstream.melhubert.model import MelHubert

CONFIGS = Path(__file__).parent / "configs"

melhubert_tiny = upstream_entry(MelHubert, CONFIGS / "melhubert_tiny.yaml")
melhubert_base_20ms = upstream_entry(MelHubert, CONFIGS / "melhubert_base_20ms.yaml")
melhubert = melhubert_base_20ms
