"""The shim: what s3prl 0.4.18 expects of torch, torchaudio, huggingface_hub and pandas, where it is gone.

Each mend applies only where the thing is missing. Facts: s3prl's run_downstream.py and downstream/runner.py
import `HfFolder` and `Repository` (removed in huggingface_hub 1), load checkpoints that hold
`argparse.Namespace` (refused by torch >= 2.6), and use torchaudio calls that 2.9 removed.
"""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any

from sslbench.integrations.s3prl import _hook

_applied = False


def apply() -> None:
    """Mend this process once. Imports torch, which s3prl imports anyway; touches no file of s3prl."""
    global _applied
    if _applied:
        return
    _applied = True
    _hook.after_import("torch", _allow_namespace)
    _hook.after_import("torchaudio", _mend_torchaudio)
    _hook.after_import("huggingface_hub", mend_huggingface_hub)
    _hook.after_import("pandas", _mend_pandas)


def _allow_namespace(torch: ModuleType) -> None:
    """s3prl's own checkpoints hold their command line; a Namespace is data and runs no code."""
    import torch.serialization as serialization

    if hasattr(serialization, "add_safe_globals"):
        serialization.add_safe_globals([argparse.Namespace])


def mend_huggingface_hub(module: ModuleType) -> None:
    """Give names that s3prl's runner imports at its top, and uses only to push to the hub, a stand-in."""
    for name in ("HfFolder", "Repository"):
        if not hasattr(module, name):
            setattr(
                module, name, type(name, (), {"__init__": _gone, "get_token": _gone, "save_token": _gone})
            )


def _gone(*_args: Any, **_kwargs: Any) -> None:
    raise RuntimeError(
        "huggingface_hub >= 1 cannot push s3prl experiments; install huggingface_hub<1 for that"
    )


def _mend_pandas(pandas: ModuleType) -> None:
    if not hasattr(pandas.Series, "iteritems"):
        pandas.Series.iteritems = pandas.Series.items


def _mend_torchaudio(torchaudio: ModuleType) -> None:
    if hasattr(torchaudio, "set_audio_backend") and hasattr(torchaudio, "info"):
        return
    from sslbench.integrations.s3prl import torchaudio_shim

    torchaudio_shim.install(torchaudio)
