"""Start-up hook: s3prl, when it is first imported, meets the shim and our upstream names.

`sslbench_s3prl.pth` runs `install()` at every start of this Python, so this file uses the standard
library only, imports nothing heavy and never raises. `SSLBENCH_NO_HOOK=1` switches it off.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

OPT_OUT = "SSLBENCH_NO_HOOK"


class ImportWatch:
    """A `sys.meta_path` finder that calls functions before or after one module's code runs, once each."""

    def __init__(self) -> None:
        self.before: dict[str, Callable[[], None]] = {}
        self.after: dict[str, Callable[[ModuleType], None]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The real finders' spec, with its loader's `exec_module` wrapped for the watched names."""
        if name not in self.before and name not in self.after:
            return None
        spec = self._real_spec(name, path, target)
        loader = spec.loader if spec is not None else None
        if loader is None or not hasattr(loader, "exec_module"):
            return spec
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            first, then = self.before.pop(name, None), self.after.pop(name, None)
            if first is not None:
                first()
            run(module)
            if then is not None:
                then(module)

        # the instance is shadowed, not wrapped: inspect, pickle and resource readers keep the real loader
        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _real_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                return spec
        return None


_WATCH = ImportWatch()
_installed = False


def _watching() -> ImportWatch:
    if _WATCH not in sys.meta_path:
        sys.meta_path.insert(0, _WATCH)
    return _WATCH


def before_import(name: str, action: Callable[[], None]) -> None:
    """Run `action` before the module's code; at once when it is already imported."""
    if name in sys.modules:
        action()
    else:
        _watching().before[name] = action


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Run `action(module)` after the module's code; at once when it is already imported."""
    if name in sys.modules:
        action(sys.modules[name])
    else:
        _watching().after[name] = action


def install() -> None:
    """Watch for s3prl unless `SSLBENCH_NO_HOOK` is set. Repeating it changes nothing."""
    if os.environ.get(OPT_OUT, "") not in ("", "0"):
        return
    global _installed
    _installed = True
    before_import("s3prl", _mend)
    before_import("s3prl.hub", _bound_waiting)
    after_import("s3prl.hub", _register)


def installed() -> bool:
    """Whether this process, and so every Python that it starts, has the hook."""
    return _installed


def _mend() -> None:
    importlib.import_module("sslbench.integrations.s3prl.compat").apply()


def _bound_waiting() -> None:
    """`s3prl.hub` imports ESPnet, which asks NLTK's server for data: behind a silent firewall that
    would wait for minutes, so sockets time out early until the import is done."""
    socket = importlib.import_module("socket")
    if socket.getdefaulttimeout() is None:
        socket.setdefaulttimeout(5.0)


def _register(hub: ModuleType) -> None:
    socket = importlib.import_module("socket")
    if socket.getdefaulttimeout() == 5.0:
        socket.setdefaulttimeout(None)
    importlib.import_module("sslbench.integrations.s3prl.hub").register(hub)
