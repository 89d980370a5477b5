"""Names to things, lazily: upstream families, tasks, corpora, and what other packages plug in.

A folder under `upstream/` is a family; each `configs/NAME.yaml` in it is an upstream NAME, and the
family's own name, where its hubconf defines it, is the family with a checkpoint's configuration (or its
default preset). Nothing is imported until an entry is used.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sslbench.errors import SslbenchError, did_you_mean


@dataclass(frozen=True)
class Entry:
    """One registered name and where to find it."""

    name: str
    target: str  # "module:object"
    family: str
    source: str  # "sslbench" or "plugin"
    config: Path | None = None  # the preset's YAML, for upstreams

    def load(self) -> Any:
        """Import and return the object. Raises `SslbenchError` naming the entry when that fails."""
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise SslbenchError(f"{self.name}: cannot load {self.target} ({error})") from error


class Registry:
    """A named set of lazily loaded objects with collision errors and did-you-mean."""

    def __init__(self, kind: str, entries: list[Entry]) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Register an entry. Raises `SslbenchError` when its name is taken by another target."""
        taken = self._entries.get(entry.name)
        if taken is not None and taken != entry:
            raise SslbenchError(
                f"{self.kind} {entry.name!r} is registered twice: {taken.target} and {entry.target}"
            )
        self._entries[entry.name] = entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries[name] for name in sorted(self._entries))

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise SslbenchError(f"no {self.kind} named {name!r}; {did_you_mean(name, self._entries)}")
        return self._entries[name]


def _room(name: str) -> list[Path]:
    """The folders of a mapped room that hold a Python package, sorted."""
    package = importlib.import_module(f"sslbench.{name}")
    folders = (folder for root in package.__path__ for folder in Path(root).iterdir())
    return sorted(folder for folder in folders if (folder / "__init__.py").is_file())


def _defines(hubconf: Path, name: str) -> bool:
    """Whether a hubconf assigns or defines a name; read as text, since importing it would import torch.

    A family leaves its own name out where s3prl already means something else by it ("hubert").
    """
    if not hubconf.is_file():
        return False
    return (
        re.search(rf"^(?:def )?{re.escape(name)}\b\s*[=:(]", hubconf.read_text(encoding="utf-8"), re.M)
        is not None
    )


def _plugins(group: str) -> list[Entry]:
    points = entry_points(group=f"sslbench.{group}")
    return [Entry(point.name, point.value, family=point.name, source="plugin") for point in points]


def upstreams() -> Registry:
    """Every upstream: presets and family names of `upstream/`, and `sslbench.upstreams` entry points.

    An upstream entry is a callable `entry(ckpt=None, model_config=None, refresh=False, **kw)`.
    """
    entries = []
    for folder in _room("upstream"):
        target = f"sslbench.upstream.{folder.name}.hubconf"
        presets = sorted((folder / "configs").glob("*.yaml"))
        entries += [Entry(p.stem, f"{target}:{p.stem}", folder.name, "sslbench", p) for p in presets]
        if _defines(folder / "hubconf.py", folder.name):
            entries.append(Entry(folder.name, f"{target}:{folder.name}", folder.name, "sslbench"))
    return Registry("upstream", entries + _plugins("upstreams"))


def converters() -> Registry:
    """Every family that reads other toolkits' checkpoints: `convert.py` with `CONVERTER`
    (`sslbench.convert.family.Converter`), and `sslbench.converters` entry points."""
    folders = [folder for folder in _room("upstream") if (folder / "convert.py").is_file()]
    entries = [
        Entry(f.name, f"sslbench.upstream.{f.name}.convert:CONVERTER", f.name, "sslbench") for f in folders
    ]
    return Registry("converter", entries + _plugins("converters"))


def tasks() -> Registry:
    """Every evaluation of `downstream/`: `task.py` with a class `Task`."""
    folders = [folder for folder in _room("downstream") if (folder / "task.py").is_file()]
    entries = [Entry(f.name, f"sslbench.downstream.{f.name}.task:Task", f.name, "sslbench") for f in folders]
    return Registry("task", entries + _plugins("tasks"))


def corpora() -> Registry:
    """Every corpus of `sslbench/corpora/`: a module or package with `prepare`."""
    folder = Path(__file__).parent / "corpora"
    names = sorted(
        {p.stem for p in folder.glob("[!_]*") if p.suffix == ".py" or (p / "__init__.py").is_file()}
    )
    entries = [Entry(n, f"sslbench.corpora.{n}:prepare", n, "sslbench") for n in names]
    return Registry("corpus", entries + _plugins("corpora"))
