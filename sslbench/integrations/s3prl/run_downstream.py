"""s3prl's unmodified runner: `python -m sslbench.integrations.s3prl.run_downstream ARGS`.

For places where the start-up hook does not run. It is a process of its own because it goes further than
the hook: see `main`.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
import tempfile
from types import ModuleType
from typing import Any

import sslbench
from sslbench.integrations.s3prl import _hook


def main() -> None:
    """Register our names, then run the unmodified script with this process's arguments.

    - Without CUDA `Tensor.cuda()` is a no-op: s3prl's sv_voxceleb1 calls it regardless of `--device`.
    - ESPnet counts as absent unless `-u` names its upstream: it takes two thirds of the start.
    - catalyst, where absent, has a stand-in: speech_commands imports it, and uses it with several processes.
    - voxceleb1's lists of files, kept beside its code whatever the corpus, go to a temporary folder.
    """
    import torch

    if "-u" in sys.argv and not any("espnet" in word for word in sys.argv):
        sys.modules["espnet2"] = None  # type: ignore[assignment]
    sslbench.register()
    if not torch.cuda.is_available():
        torch.Tensor.cuda = _stay  # type: ignore[method-assign,assignment]
    if importlib.util.find_spec("catalyst") is None:
        _stand_in_for_catalyst()
    sys.argv[0] = "run_downstream.py"
    with tempfile.TemporaryDirectory() as lists:
        _hook.after_import(
            "s3prl.downstream.voxceleb1.dataset", lambda module: setattr(module, "CACHE_PATH", lists)
        )
        runpy.run_module("s3prl.run_downstream", run_name="__main__")


def _stand_in_for_catalyst() -> None:
    for name in ("catalyst", "catalyst.data", "catalyst.data.sampler"):
        sys.modules[name] = ModuleType(name)
    setattr(sys.modules["catalyst.data.sampler"], "DistributedSamplerWrapper", None)  # noqa: B010


def _stay(tensor: Any, *_args: Any, **_kwargs: Any) -> Any:
    return tensor


if __name__ == "__main__":
    main()
