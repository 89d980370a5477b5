"""Checkpoints of other toolkits: safe readers, and what a family says about its own key names."""

FORMATS = ("k2ssl", "fairseq", "s3prl", "hf")
"""Formats that can be read."""
