"""Two processes over gloo, launched as torchrun does it, against one with both their batches."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from pretrain_toy import config, curve, finish, fork_run, make_both, make_settings

from sslbench.errors import SslbenchError
from sslbench.io import read_jsonl
from sslbench.pretrain.trainer import run


def launch(settings: dict[str, Any], folder: Path, size: int = 2, status: int = 0, **changes: Any) -> str:
    """Run so many ranks to their end, which all must have this status. Returns what they printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    outputs = [folder / f"rank{rank}-{port}.log" for rank in range(size)]
    ranks = [
        fork_run({**settings, **changes}, output, RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank, output in enumerate(outputs)
    ]
    statuses = [finish(pid) for pid in ranks]
    said = "\n".join(path.read_text() for path in outputs)
    assert statuses == [status] * size, said
    return said


def test_two_processes_equal_one_with_both_batches(tmp_path: Path) -> None:
    corpus = make_both(tmp_path)
    # One bucket, since ranks get batches of one bucket at a time; and less than one pass over the data, at
    # whose end one of the ranks may get nothing: both would deal the batches in another order.
    settings = make_settings(
        corpus, tmp_path / "two", num_buckets=1, accum=2, max_duration_s=2.5, save_every=3
    )
    launch(settings, tmp_path, max_steps=3)
    launch(settings, tmp_path, max_steps=5)  # goes on from step 3
    alone = config(settings, exp_dir=str(tmp_path / "one"), accum=4, max_steps=5)
    assert run(alone) == 0

    two, one = curve(tmp_path / "two"), curve(tmp_path / "one")
    assert len(one) == 5
    for (step, *values), (other, *expected) in zip(two, one, strict=True):
        assert step == other
        assert values == pytest.approx(expected, rel=1e-5, abs=1e-5)
    dev = [
        [r["dev_loss"] for r in read_jsonl(tmp_path / n / "log.jsonl") if "dev_loss" in r]
        for n in ("one", "two")
    ]
    assert dev[1][-1] == pytest.approx(dev[0][-1], rel=1e-5)

    used = [[r["ids"] for r in read_jsonl(tmp_path / "two" / f"utterances-{k}.jsonl")] for k in (0, 1)]
    assert not any(set(a) & set(b) for a, b in zip(*used, strict=True))

    with pytest.raises(SslbenchError, match="stored with world_size=2, now 1"):
        run(config(settings, max_steps=20))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on_without_repeats_or_gaps(
    tmp_path: Path, before: int, after: int
) -> None:
    settings = make_settings(make_both(tmp_path), tmp_path / "exp", max_duration_s=3.0, num_buckets=3)
    launch(settings, tmp_path, before, max_steps=5)
    settings["max_steps"] = 70 // after
    said = launch(settings, tmp_path, after, status=2)
    assert f"stored with world_size={before}, now {after}; resume with the same world_size, or" in said
    launch(settings, tmp_path, after, allow_reshard=True)
    rows = [
        (row["step"], row["epoch"], row["ids"])
        for path in (tmp_path / "exp").glob("utterances-*.jsonl")
        for row in read_jsonl(path)
    ]
    epochs: dict[int, list[str]] = {}
    for _, epoch, ids in sorted(rows):
        epochs.setdefault(epoch, []).extend(ids)
    assert {epoch for step, epoch, _ in rows if step == 6} == {0}  # the change came within an epoch
    everything = [f"train{i:03d}" for i in range(48)]
    complete = [sorted(ids) for epoch, ids in epochs.items() if epoch < max(epochs)]
    assert len(complete) >= 2
    assert all(ids == everything for ids in complete)
    launch(settings, tmp_path, after, max_steps=settings["max_steps"] + 2)  # and again, the plain way
