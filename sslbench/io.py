"""Files that are either whole or absent: atomic writes, checksums, JSON lines."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sslbench.errors import CorruptFileError, SslbenchError


@contextlib.contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success fsync it and rename it over the target.

    After a crash the target is the old file or the new one, never a mixture. Accepted trade-off: a
    kill -9 can leave a `.tmp-*` file behind, which nothing reads.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".tmp-{target.name}-", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        fsync(temporary)
        # mkstemp makes private files; a result should be as readable as any other file
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
        fsync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def only_one(folder: Path | str) -> Iterator[None]:
    """Work in a folder alone: wait, saying so, while another process of this machine works there.

    A killed recipe can leave its trainer running; a second one beside it would mix two runs.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with (Path(folder) / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: another process works here; waiting for it to end", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_text(target: Path | str, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path | str, value: Any) -> None:
    """Write JSON atomically; NaN and infinities are refused, since other readers refuse them too."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(source: Path | str) -> str:
    """Read a text file. Raises `SslbenchError` when missing, `CorruptFileError` when not UTF-8."""
    try:
        return Path(source).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SslbenchError(f"{source}: no such file") from None
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"{source}: is no UTF-8 text ({error.reason} at byte {error.start})") from None


def read_json(source: Path | str) -> Any:
    """Read a JSON file. Raises `SslbenchError` when missing, `CorruptFileError` when not JSON."""
    text = read_text(source)
    try:
        return json.loads(text)
    except ValueError as error:
        raise CorruptFileError(f"{source}: not valid JSON ({error})") from None


def write_yaml(target: Path | str, value: Any) -> None:
    """Write YAML atomically, keys in the order given."""
    write_text(target, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def read_yaml(source: Path | str) -> Any:
    """Read a YAML file. Raises `SslbenchError` when missing, `CorruptFileError` when not YAML."""
    text = read_text(source)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CorruptFileError(f"{source}: not valid YAML ({' '.join(str(error).split())})") from None


def write_jsonl(target: Path | str, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines atomically."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_text(target, "".join(line + "\n" for line in lines))


def read_jsonl(source: Path | str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON-lines file; a torn last line (killed writer) is left out."""
    with Path(source).open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield json.loads(line)
            except ValueError:  # also what is no UTF-8
                if line.endswith(b"\n"):
                    raise CorruptFileError(f"{source}:{number}: not valid JSON") from None


def sha256_file(source: Path | str) -> str:
    """The sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with Path(source).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """The sha256 of a value's canonical JSON form: equal configurations hash equally."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
