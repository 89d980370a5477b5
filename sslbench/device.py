"""Which device a name means."""

from __future__ import annotations

import torch

from sslbench.errors import SslbenchError


def pick_device(name: str) -> torch.device:
    """The device of a name: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        SslbenchError: no such device here, or no such name.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SslbenchError(f"device: no device is called {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise SslbenchError(
            f"device: {name} is asked for but torch sees {gpus or 'no'} GPU{'s' * (gpus > 1)}; "
            "see 'sslbench doctor'"
        )
    return device


def send(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`x` on a device, by a copy that the host does not wait for; `x` itself where it is there already."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=device.type != "cpu")
