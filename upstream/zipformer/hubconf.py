"""Names of this family for s3prl, torch.hub and the registry."""

from pathlib import Path

from sslbench.nn.upstream import upstream_entry
from sslbench.upstream.zipformer.model import ZipformerSSL

CONFIGS = Path(__file__).parent / "configs"

zipformer_tiny = upstream_entry(ZipformerSSL, CONFIGS / "zipformer_tiny.yaml")
zipformer_base = upstream_entry(ZipformerSSL, CONFIGS / "zipformer_base.yaml")
zipformer_large = upstream_entry(ZipformerSSL, CONFIGS / "zipformer_large.yaml")
zipformer_fbank_tiny = upstream_entry(ZipformerSSL, CONFIGS / "zipformer_fbank_tiny.yaml")
zipformer_fbank_base = upstream_entry(ZipformerSSL, CONFIGS / "zipformer_fbank_base.yaml")
zipformer = zipformer_base
