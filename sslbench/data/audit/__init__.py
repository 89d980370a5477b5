"""Check whole manifests: every recording decoded, every label and transcript looked at, splits compared."""

from sslbench.data.audit.run import audit

__all__ = ["audit"]
