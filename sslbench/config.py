"""Configuration dataclasses as YAML files and command-line flags.

One dataclass gives the file format, the flags and the help text (its attribute docstrings). YAML states
only differences from the defaults; unknown keys and wrong types are errors that name the place.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from sslbench.errors import SslbenchError, did_you_mean
from sslbench.io import read_yaml

T = TypeVar("T")

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def _parser(cls: type[Any], **kwargs: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, **kwargs)
    parser.add_class_arguments(cls)
    return parser


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make a config from plain values.

    Args:
        cls: a dataclass whose fields all have defaults or are given.
        values: nested plain values, as read from YAML.
        where: named in the error, for example the file's path.

    Raises:
        SslbenchError: unknown key, wrong type or missing field, with `where`.
    """
    known = [option.name for option in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:  # jsonargparse lets an unknown key with an empty value pass
        if key not in known:
            raise SslbenchError(f"{where}: no setting {key!r}; {did_you_mean(str(key), known)}")
    parser = _parser(cls)
    try:
        parsed = parser.parse_object(dict(values))
        return _instantiate(parser, parsed, cls)
    except SslbenchError:
        raise
    except Exception as error:  # jsonargparse raises several kinds; each says which key
        raise SslbenchError(f"{where}: {_one_line(error)}") from None


def load(cls: type[T], path: Path | str) -> T:
    """Make a config from a YAML file. Raises `SslbenchError` naming the file."""
    return build(cls, read_values(path), where=str(path))


def read_values(path: Path | str) -> dict[str, Any]:
    """The settings in a YAML file. Raises `SslbenchError` naming the file when it holds anything else."""
    values = read_yaml(path) or {}
    if not isinstance(values, Mapping):
        raise SslbenchError(f"{path}: expected 'key: value' lines")
    return dict(values)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with changes; a group of settings keeps what the changes do not name."""
    result = dict(values)
    for key, change in changes.items():
        before = result.get(key)
        if isinstance(before, Mapping) and isinstance(change, Mapping):
            change = merged(before, change)
        result[key] = change
    return result


def parse(cls: type[T], argv: Sequence[str], prog: str, description: str, epilog: str = "") -> T:
    """Make a config from a command line: `--config FILE.yaml` and `--key.subkey value` overrides."""
    import argparse

    parser = _parser(
        cls,
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file with the settings that differ from the defaults"
    )
    try:
        parsed = parser.parse_args(list(argv))
        return _instantiate(parser, parsed, cls)
    except SslbenchError:
        raise
    except Exception as error:
        raise SslbenchError(f"{prog}: {_one_line(error)}{_meant(error, cls)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _meant(error: Exception, cls: type[Any]) -> str:
    """The setting that a mistyped one in a file is close to."""
    name = re.search(r"Option '(\w+)' is not accepted", str(error))
    known = [option.name for option in dataclasses.fields(cls)]
    return f"; {did_you_mean(name[1], known)}" if name else ""


def _instantiate(parser: ArgumentParser, parsed: Namespace, cls: type[T]) -> T:
    objects = parser.instantiate_classes(parsed)
    return cls(**{field.name: objects[field.name] for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


def to_dict(config: Any) -> dict[str, Any]:
    """The plain form of a config dataclass: tuples become lists, paths become strings."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
