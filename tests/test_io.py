"""Files are whole or absent, checksums catch damage, and a folder has one worker at a time."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from sslbench import io
from sslbench.errors import CorruptFileError, SslbenchError


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    io.write_text(target, "old")
    with pytest.raises(RuntimeError):
        _write_half(target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def _write_half(target: Path) -> None:
    with io.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_torn_last_line_is_left_out_but_damage_inside_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in io.read_jsonl(path)] == [1, 2]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(CorruptFileError, match=r"log.jsonl:2: not valid JSON"):
        list(io.read_jsonl(path))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SslbenchError, match=r"none.yaml: no such file"):
        io.read_yaml(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(CorruptFileError, match=r"bad.yaml: not valid YAML"):
        io.read_yaml(tmp_path / "bad.yaml")


def test_a_last_line_torn_within_a_letter_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes('{"step": 1}\n{"name": "é'.encode()[:-1])
    assert list(io.read_jsonl(path)) == [{"step": 1}]


def _hold(folder: Path, held: multiprocessing.synchronize.Event) -> None:
    with io.only_one(folder):
        held.set()
        time.sleep(60)


def test_a_second_process_waits_until_the_first_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    first = context.Process(target=_hold, args=(tmp_path, held))
    first.start()
    assert held.wait(30)
    killer = context.Process(target=_kill_soon, args=(first.pid,))
    killer.start()
    with io.only_one(tmp_path):  # gets the lock although its holder was killed with SIGKILL
        assert "waiting for it to end" in capsys.readouterr().err
    first.join(10)
    killer.join(10)


def _kill_soon(pid: int) -> None:
    import os
    import signal

    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
