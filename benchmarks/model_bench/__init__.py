"""Parts of `benchmarks/models.py`."""
