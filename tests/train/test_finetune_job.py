"""What the engine promises for pretraining holds for fine-tuning: stops, processes, the utterance log."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finetune.conftest import _fake_upstreams, make_config, tones  # noqa: F401  # fixtures

from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.search import finetune
from sslbench.finetune.trainer import FinetuneJob
from sslbench.io import read_json, read_jsonl

Make = Callable[..., FinetuneConfig]


def rows(config: FinetuneConfig, key: str) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(Path(config.exp_dir) / "log.jsonl") if key in row]


def test_a_polite_stop_saves_and_going_on_changes_no_bit(
    make_config: Make,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = make_config(upstream="tunable", tune="full", dropout=0.2, steps=20, log_every_steps=1)
    base = dataclasses.replace(base, eval_every_steps=10, utterance_log=True)
    whole = dataclasses.replace(base, exp_dir=base.exp_dir + "-whole")
    done = finetune(whole)
    original, pending = FinetuneJob.before_update, {3, 14}

    def before_update(self: FinetuneJob, step: int) -> None:
        original(self, step)
        if step in pending:
            pending.discard(step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(FinetuneJob, "before_update", before_update)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            finetune(base)
    again = finetune(base)
    assert again["dev_wer"] == done["dev_wer"]
    assert [row["loss"] for row in rows(base, "loss")] == [row["loss"] for row in rows(whole, "loss")]
    used = [list(read_jsonl(Path(c.exp_dir) / "utterances-0.jsonl")) for c in (base, whole)]
    assert used[0] == used[1]
    assert len(used[0]) == 20


@pytest.mark.parametrize("cache_limit_gib", [20.0, 0.0], ids=["cached", "audio"])
def test_two_processes_share_the_clips_and_learn(
    make_config: Make,  # noqa: F811
    cache_limit_gib: float,
) -> None:
    base = make_config(steps=6, eval_every_steps=6, log_every_steps=1, cache_limit_gib=cache_limit_gib)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    base = dataclasses.replace(base, utterance_log=True, max_duration_s=5.0)
    ranks = [fork(base, RANK=str(rank), **common) for rank in (0, 1)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks] == [0, 0]
    done = read_json(Path(base.exp_dir) / "DONE")
    assert 0 <= done["dev_wer"] <= 200
    used = [list(read_jsonl(Path(base.exp_dir) / f"utterances-{k}.jsonl")) for k in (0, 1)]
    assert len(used[0]) == len(used[1]) == 6
    assert not any(set(a["ids"]) & set(b["ids"]) for a, b in zip(*used, strict=True))
    first = [name for k in (0, 1) for row in used[k] if row["epoch"] == 0 for name in row["ids"]]
    assert sorted(first) == sorted(f"train-{i}" for i in range(24))
    losses = [row["loss"] for row in rows(base, "loss")]
    assert losses[-1] < losses[0]


def fork(config: FinetuneConfig, **environment: str) -> int:
    """`finetune` in a forked child, which keeps this test's fixtures."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.environ.update(environment)
        finetune(config)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)
