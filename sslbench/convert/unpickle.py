"""Reading `.pt` files of other toolkits without running anything that they contain.

Such files hold more than tensors: command lines (`argparse.Namespace`), configurations (omegaconf), paths,
dictionaries of symbols (fairseq). Unpickling those normally imports and calls whatever the file names. Here
torch's own restricted reader (`weights_only=True`) does the work; every class that it does not know, if it is
of a package known to put data into checkpoints, is replaced by an inert container which keeps what the file
would have given to the class. Nothing outside torch is imported or called; any other name is refused.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from sslbench.errors import CorruptFileError, SslbenchError

_TOOLKITS = ("fairseq", "hydra", "icefall", "k2", "lhotse", "numpy", "omegaconf", "s3prl")
DATA_PACKAGES = frozenset((*_TOOLKITS, "argparse", "collections", "datetime", "enum", "pathlib", "typing"))
"""Top-level packages whose classes hold settings or statistics in the checkpoints that we read."""
DATA_BUILTINS = frozenset(
    ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "range", "slice", "str", "tuple")
)
_LEGACY_PICKLES = 4  # magic number, protocol version, system information, the object


class Inert:
    """Stands for an object of a class that is not loaded: what it was made with, and its state."""

    def __new__(cls, *args: Any, **_: Any) -> Inert:
        """Keep the arguments; called where the file would have called the class."""
        self = super().__new__(cls)
        self.__dict__ = {"inert_args": args, "inert_state": {}}
        return self

    def __init__(self, *_: Any, **__: Any) -> None:
        """Arguments are kept by `__new__`."""

    def __setstate__(self, state: Any) -> None:
        """Keep the state."""
        self.__dict__["inert_state"] = state

    def __repr__(self) -> str:
        """Which class it stands for."""
        return f"<inert {type(self).__module__}.{type(self).__name__}>"

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep an item, as a dict subclass is filled."""
        self.__dict__.setdefault("inert_items", {})[key] = value


def load(path: Path) -> Any:
    """The content of a torch file; objects of unknown classes come as `Inert`.

    Raises:
        SslbenchError: no such file, or it names code that no checkpoint of a known toolkit needs.
        CorruptFileError: truncated or no torch file.
    """
    if not path.is_file():
        raise SslbenchError(f"{path}: no such file; give the checkpoint's .pt file")
    try:
        names = set(_globals(path))
    except (ValueError, zipfile.BadZipFile, KeyError, OSError, UnicodeDecodeError, EOFError) as error:
        raise CorruptFileError(
            f"{path}: is no torch checkpoint, or damaged ({_line(error)}); copy it again"
        ) from None
    stand_ins: list[Any] = [_stand_in(name, path) for name in sorted(names) if not _known_to_torch(name)]
    try:
        with torch.serialization.safe_globals(stand_ins):
            # mapped, since the optimizer's part of a training checkpoint is never looked at
            mapped = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    except Exception as error:  # the restricted reader raises many kinds for damaged files
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused or "weights_only" in str(error):
            what = refused[1] if refused else "what torch's restricted reader refuses"
            raise SslbenchError(
                f"{path}: names {what}, which is more than data; nothing of it was run; re-save only the "
                "tensors and the settings"
            ) from None
        raise CorruptFileError(f"{path}: damaged ({_line(error)}); copy it again") from None


def plain(value: Any) -> Any:
    """The settings in a value as dicts, lists, strings and numbers; what has no such form becomes None.

    omegaconf's containers keep their content in `_content` and their leaves in `_val`.
    """
    if isinstance(value, Inert):
        state = value.__dict__["inert_state"]
        if isinstance(state, Mapping):
            for key in ("_content", "_val"):
                if key in state:
                    return plain(state[key])
        items = value.__dict__.get("inert_items") or state
        if items:
            return plain(items)
        parts = value.__dict__["inert_args"]
        return "/".join(map(str, parts)) if parts and all(isinstance(part, str) for part in parts) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value.__class__.__module__ == "argparse":
        return plain(vars(value))
    return value if isinstance(value, (str, int, float, bool)) else None


def _known_to_torch(name: str) -> bool:
    if name == "torch.torch_version.TorchVersion":  # icefall notes it in its checkpoints; a string
        return False
    return name.startswith("torch.") or name in (
        "collections.OrderedDict",
        "collections.Counter",
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.set",
        "builtins.complex",
    )


def _stand_in(name: str, path: Path) -> type[Inert]:
    module, _, attribute = name.rpartition(".")
    package = name.split(".")[0]
    if package not in (*DATA_PACKAGES, "torch") and not (module == "builtins" and attribute in DATA_BUILTINS):
        raise SslbenchError(
            f"{path}: names {name}, which no checkpoint of a known toolkit needs; nothing of it was run; "
            "re-save only the tensors and the settings"
        )
    return type(attribute, (Inert,), {"__module__": module, "__qualname__": attribute})


def _globals(path: Path) -> Iterator[str]:
    """Every `module.name` that the file's pickles mention, found by reading opcodes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(found) != 1:
                raise ValueError("no data.pkl in it")
            with archive.open(found[0]) as stream:
                yield from _names(stream)
    else:
        with path.open("rb") as stream:
            for _ in range(_LEGACY_PICKLES):
                yield from _names(stream)


def _names(stream: IO[bytes]) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            module, name = str(argument).split(" ", 1)
            yield f"{_PYTHON_2.get(module, module)}.{name}"
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            raise ValueError(f"opcode {opcode.name}, which torch does not write")


_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
