"""sslbench: quality, cost and uncertainty of speech self-supervised encoders, in one stamped row."""

__version__ = "0.1.0"

__all__ = ["__version__", "register"]


def register() -> None:
    """Add every sslbench upstream to `s3prl.hub` now.

    The import hook installed with the package does the same when s3prl is first imported; call this
    where site hooks do not run (`PYTHONPATH`, `python -S`). Raises `SslbenchError` on a name collision.
    """
    from sslbench.integrations.s3prl.hub import register as register_hub

    register_hub()
