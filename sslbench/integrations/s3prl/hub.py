"""Our upstream names on `s3prl.hub`, where s3prl, its runner and ESPnet look every name up.

`s3prl.hub` is a module of callables that is read with `getattr` and `globals()`, so an attribute set
on it is a full member (s3prl 0.4.18, hub.py and nn/upstream.py). Entries import their family on call.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from sslbench import registry
from sslbench.errors import SslbenchError

MARK = "__sslbench_target__"


def lazy_entry(entry: registry.Entry) -> Callable[..., Any]:
    """A function that imports the upstream's module when it is called."""

    def build(*args: Any, **kwargs: Any) -> Any:
        return entry.load()(*args, **kwargs)

    build.__name__ = build.__qualname__ = entry.name
    build.__doc__ = f"sslbench upstream {entry.name!r} (family {entry.family}): ckpt=, model_config=, frozen="
    setattr(build, MARK, entry.target)
    return build


def register(hub: ModuleType | None = None) -> list[str]:
    """Set every registered upstream on `s3prl.hub`; repeating it changes nothing.

    Args:
        hub: the module; imported when not given.

    Returns:
        The names set, sorted.

    Raises:
        SslbenchError: s3prl is not installed, or one of our names means something else there.
    """
    if hub is None:
        hub = _import_hub()
    names = []
    for entry in registry.upstreams():
        taken = getattr(hub, entry.name, None)
        if taken is not None and getattr(taken, MARK, None) != entry.target:
            raise SslbenchError(
                f"s3prl.hub: {entry.name!r} exists already ({getattr(taken, '__module__', taken)}); "
                f"rename the sslbench upstream {entry.target}, or set SSLBENCH_NO_HOOK=1"
            )
        setattr(hub, entry.name, lazy_entry(entry))
        names.append(entry.name)
    return names


def _import_hub() -> ModuleType:
    # where the start-up hook did not run, the shim is still needed before s3prl's own imports
    from sslbench.integrations.s3prl import compat

    compat.apply()
    try:
        return importlib.import_module("s3prl.hub")
    except ImportError as error:
        raise SslbenchError(f"s3prl: cannot be imported ({error}); pip install 'sslbench[s3prl]'") from error
