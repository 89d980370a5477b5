"""s3prl's unmodified runner: `python -m sslbench.integrations.s3prl.run_downstream ARGS`.

For places where the start-up hook does not run. Without CUDA it also makes `Tensor.cuda()` a no-op, which
s3prl's sv_voxceleb1 calls regardless of `--device`; that is why this is a process of its own.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

import sslbench


def main() -> None:
    """Register our names, then run the unmodified script with this process's arguments."""
    import torch

    sslbench.register()
    if not torch.cuda.is_available():
        torch.Tensor.cuda = _stay  # type: ignore[method-assign,assignment]
    sys.argv[0] = "run_downstream.py"
    runpy.run_module("s3prl.run_downstream", run_name="__main__")


def _stay(tensor: Any, *_args: Any, **_kwargs: Any) -> Any:
    return tensor


if __name__ == "__main__":
    main()
