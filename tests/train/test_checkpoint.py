"""Checkpoints: whole or absent, and never trusted unseen."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.train import checkpoint


def snapshot(step: int) -> checkpoint.Snapshot:
    state = {"w": torch.full((3, 4), float(step)), "b": torch.arange(3)}
    trainer = {"updater": {"lr": 0.1, "t": torch.ones(2)}, "step": step}
    return checkpoint.Snapshot(step, state, state, trainer, {"dev_loss": 1.0})


def test_a_checkpoint_comes_back_and_old_ones_go(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        checkpoint.save(tmp_path, snapshot(step), keep_last=3)
    assert checkpoint.steps_in(tmp_path) == [4, 6, 8]
    assert checkpoint.newest_good(tmp_path) == 8
    loaded = checkpoint.load(checkpoint.folder_of(tmp_path, 8))
    assert torch.equal(loaded.model["w"], snapshot(8).model["w"])
    assert loaded.average is not None
    assert loaded.trainer["updater"]["lr"] == 0.1
    assert loaded.facts == {"dev_loss": 1.0}


@pytest.mark.parametrize("name", ["model.safetensors", "average.safetensors", "trainer.pt", "meta.json"])
@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_newest_checkpoint_is_found_and_the_one_before_used(
    tmp_path: Path, name: str, how: str
) -> None:
    rng = random.Random(name + how)
    checkpoint.save(tmp_path, snapshot(2), keep_last=3)
    for _ in range(8):
        checkpoint.save(tmp_path, snapshot(4), keep_last=3)
        path = checkpoint.folder_of(tmp_path, 4) / name
        damage(path, how, rng)
        with pytest.warns(UserWarning, match="going back to the checkpoint before it"):
            assert checkpoint.newest_good(tmp_path) == 2
    assert (tmp_path / "damaged-step-00000004").is_dir()


def damage(path: Path, how: str, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncate":
        path.write_bytes(data[: rng.randrange(len(data) - 2)])
    elif path.name == "meta.json":  # any other byte there may be harmless, such as a blank
        start = data.index(b'"sha256"') + data[data.index(b'"sha256"') :].index(b'": "') + 4
        data[start + rng.randrange(64)] ^= 1
        path.write_bytes(data)
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    assert checkpoint.newest_good(tmp_path) is None
    checkpoint.save(tmp_path, snapshot(2), keep_last=3)
    (checkpoint.folder_of(tmp_path, 2) / "trainer.pt").write_bytes(b"x")
    with (
        pytest.warns(UserWarning, match="going back"),
        pytest.raises(SslbenchError, match="no checkpoint is whole"),
    ):
        checkpoint.newest_good(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, snapshot(2), keep_last=3)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(SslbenchError, match="No space left"):
        checkpoint.save(tmp_path, snapshot(4), keep_last=3)
    assert checkpoint.newest_good(tmp_path) == 2
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_checkpoint_under_another_name_is_refused(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, snapshot(2), keep_last=3)
    folder.rename(checkpoint.folder_of(tmp_path, 9))
    with pytest.raises(CorruptFileError, match="is of step 2"):
        checkpoint.load(checkpoint.folder_of(tmp_path, 9))
