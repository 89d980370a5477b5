"""s3prl's upstream names without importing s3prl: `import s3prl.hub` pulls in ESPnet and takes 10 to 15 s."""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path


@functools.cache
def s3prl_names() -> dict[str, str]:
    """Upstream name -> module that defines it, read from the source of s3prl's hubconf files.

    Empty when s3prl is not installed.
    """
    spec = importlib.util.find_spec("s3prl")
    if spec is None or not spec.submodule_search_locations:
        return {}
    found: dict[str, str] = {}
    root = Path(next(iter(spec.submodule_search_locations))) / "upstream"
    for hubconf in sorted(root.glob("*/hubconf.py")):
        for node in ast.parse(hubconf.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name] = f"s3prl.upstream.{hubconf.parent.name}.hubconf"
    return found


def takes_ckpt(name: str) -> bool:
    """Whether a name of s3prl loads what it is given; all others write their own address over `ckpt`, or have
    no weights (s3prl 0.4.18, upstream/*/hubconf.py)."""
    return name.endswith(("_local", "_url", "_custom")) and name != "baseline_local"  # of a model_config
