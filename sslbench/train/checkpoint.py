"""Training checkpoints: a folder that is whole or absent, each file with its sha256.

`checkpoints/step-XXXXXXXX/{model.safetensors, average.safetensors, trainer.pt, meta.json}`. A folder is
written under another name, synced and renamed, so a kill at any moment leaves the older ones untouched.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.io import fsync, read_json, sha256_file, sha256_json, write_json

MODEL, AVERAGE, TRAINER, META = "model.safetensors", "average.safetensors", "trainer.pt", "meta.json"
PREFIX = "step-"
FORMAT = 2
OWN = "meta_sha256"  # of meta.json's other content


@dataclass
class Snapshot:
    """Everything that training goes on from."""

    step: int
    """Updates done."""
    model: Mapping[str, torch.Tensor]
    """`state_dict` of the model."""
    average: Mapping[str, torch.Tensor] | None
    """Running average of the weights."""
    trainer: dict[str, Any]
    """Tensors and plain values: optimizer, data position, counters."""
    facts: dict[str, Any]
    """For people and `meta.json`: losses, hours, configuration's hash."""


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lies."""
    return root / f"{PREFIX}{step:08d}"


def steps_in(root: Path) -> list[int]:
    """The stored steps, oldest first."""
    names = (path.name.removeprefix(PREFIX) for path in root.glob(PREFIX + "*"))
    return sorted(int(name) for name in names if name.isdigit())


def save(root: Path, snapshot: Snapshot, keep_last: int) -> Path:
    """Write a checkpoint, then drop all but the newest `keep_last`.

    Raises:
        SslbenchError: the disk is full or not writable; the older checkpoints are untouched.
    """
    from safetensors import SafetensorError

    final = folder_of(root, snapshot.step)
    temporary = root / f".tmp-{final.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(".tmp-*"):  # of a killed run
            shutil.rmtree(leftover)
        temporary.mkdir()
        _write(temporary, snapshot)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        fsync(root)
    except (OSError, RuntimeError, SafetensorError) as error:  # what the three writers raise
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
        raise SslbenchError(
            f"{final}: cannot be written ({error}); free space and run the same command again"
        ) from None
    for step in steps_in(root)[:-keep_last]:
        shutil.rmtree(folder_of(root, step))
    return final


def _write(folder: Path, snapshot: Snapshot) -> None:
    from safetensors.torch import save_file

    states = {MODEL: snapshot.model, AVERAGE: snapshot.average}
    for name, state in states.items():
        if state is not None:
            # clones, since the format refuses tied tensors
            save_file({k: t.detach().cpu().clone().contiguous() for k, t in state.items()}, folder / name)
    torch.save(snapshot.trainer, folder / TRAINER)
    files = sorted(path for path in folder.iterdir())
    for path in files:
        fsync(path)
    sums = {path.name: sha256_file(path) for path in files}
    meta = {"format": FORMAT, "step": snapshot.step, **snapshot.facts, "sha256": sums}
    write_json(folder / META, {**meta, OWN: sha256_json(meta)})
    fsync(folder)


def verify(folder: Path) -> dict[str, Any]:
    """The checkpoint's `meta.json`, after checking every file. Raises `CorruptFileError` naming the file."""
    meta: dict[str, Any] = read_json(folder / META)
    # format 1 had no checksum of its own; one changed bit cannot make this one look like that
    if not isinstance(meta, dict) or (
        ("format" in meta or OWN in meta) and meta.pop(OWN, None) != sha256_json(meta)
    ):
        raise CorruptFileError(f"{folder / META}: does not match its own checksum")
    try:
        sums, step = dict(meta["sha256"]), int(meta["step"])
    except (KeyError, TypeError, ValueError):
        raise CorruptFileError(f"{folder / META}: is damaged") from None
    if folder.name != folder_of(folder.parent, step).name:
        raise CorruptFileError(f"{folder / META}: is of step {step}")
    for name in {MODEL, TRAINER, *sums}:
        if name not in sums or not (folder / name).is_file() or sha256_file(folder / name) != sums[name]:
            raise CorruptFileError(f"{folder / name}: does not match its sha256 in {META}")
    return meta


def newest_good(root: Path) -> int | None:
    """The newest step whose checkpoint is whole; None when there is none at all.

    Damaged ones are warned about, set aside as `damaged-…`, and the one before is taken.

    Raises:
        SslbenchError: there are checkpoints, but none is whole.
    """
    steps = steps_in(root)
    for step in reversed(steps):
        try:
            verify(folder_of(root, step))
            return step
        except SslbenchError as error:
            warnings.warn(f"{error}; going back to the checkpoint before it", stacklevel=2)
            aside = root / f"damaged-{folder_of(root, step).name}"
            shutil.rmtree(aside, ignore_errors=True)
            folder_of(root, step).rename(aside)
    if steps:
        raise SslbenchError(f"{root}: no checkpoint is whole; remove the folder to start again")
    return None


def set_aside_after(root: Path, step: int, why: str) -> None:
    """Rename the checkpoints of later steps to `WHY-step-…`, so that nothing goes on from them."""
    for later in steps_in(root):
        if later > step:
            folder = folder_of(root, later)
            shutil.rmtree(root / f"{why}-{folder.name}", ignore_errors=True)
            folder.rename(root / f"{why}-{folder.name}")


def load(folder: Path) -> Snapshot:
    """Read a verified checkpoint, onto the CPU."""
    from safetensors.torch import load_file

    meta = verify(folder)
    trainer = torch.load(folder / TRAINER, map_location="cpu", weights_only=True)
    average = load_file(folder / AVERAGE) if AVERAGE in meta["sha256"] else None
    facts = {key: value for key, value in meta.items() if key not in ("format", "step", "sha256")}
    return Snapshot(meta["step"], load_file(folder / MODEL), average, trainer, facts)
