"""Every upstream name for torch.hub: `torch.hub.load(<this repository>, NAME, source="local")`."""

import importlib.util as _util
import sys as _sys
from pathlib import Path as _Path

dependencies = ["torch", "torchaudio", "numpy", "yaml", "jsonargparse", "safetensors"]

_REPO = _Path(__file__).resolve().parent


def _map_room(room: str) -> None:
    """Without an installation the outer rooms are not part of the package yet."""
    name = f"sslbench.{room}"
    if _util.find_spec(name) is None:
        folder = _REPO / room
        spec = _util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"{folder}: is no package; use a complete checkout of sslbench")
        module = _util.module_from_spec(spec)
        _sys.modules[name] = module
        spec.loader.exec_module(module)


if str(_REPO) not in _sys.path and _util.find_spec("sslbench") is None:
    _sys.path.insert(0, str(_REPO))
_map_room("upstream")

from sslbench import registry as _registry  # noqa: E402
from sslbench.integrations.s3prl.hub import lazy_entry as _lazy_entry  # noqa: E402

globals().update({_entry.name: _lazy_entry(_entry) for _entry in _registry.upstreams()})
