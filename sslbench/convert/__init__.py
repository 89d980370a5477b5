"""Checkpoints of other toolkits: safe readers, and what a family says about its own key names."""
