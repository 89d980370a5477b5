"""Backends start what they say; a warned Slurm job saves first and is queued again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sslbench import launch
from sslbench.cli import main
from sslbench.errors import SslbenchError

FAKES = {
    "sbatch": '#!/bin/bash\n[ "$1" = --wait ] && shift\nSLURM_JOB_NODELIST=x SLURM_JOB_ID=7 exec bash "$1"\n',
    "scontrol": '#!/bin/bash\nif [ "$1" = show ]; then echo localhost; else echo "$*" >>requeued; fi\n',
    # as the real one, it answers a SIGTERM of its own by killing the tasks; scancel signals them
    "srun": '#!/bin/bash\n"$@" &\necho $! >step\ntrap "kill -KILL $!" TERM\nwait $!\nstatus=$?\n'
    "while kill -0 $! 2>/dev/null; do wait $!; status=$?; done\nexit $status\n",
    "scancel": '#!/bin/bash\n[ "$2" = 7 ] && kill "-${1#--signal=}" "$(cat step)"\n',
    "ssh": '#!/bin/bash\nwhile [[ "$1" == -* ]]; do [ "$1" = -o ] && shift; shift; done\nexec bash -c "$2"\n',
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for Slurm and ssh that run everything here; the scripts and rendezvous are the real ones."""
    for name, text in FAKES.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_process_needs_no_torchrun_and_several_do() -> None:
    assert launch.Job(["pretrain"]).process()[1:] == ["-m", "sslbench", "pretrain"]
    several = launch.Job(["pretrain"], ngpu=8).process()
    assert {"--nproc_per_node=8", "--standalone"} <= set(several)
    nodes = launch.Job(["pretrain"], ngpu=8, num_nodes=4).process("head:1")
    assert {"--nnodes=4", "--rdzv_endpoint=head:1"} <= set(nodes)


def test_a_verb_that_uses_all_gpus_itself_is_started_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["launch", "--backend", "slurm", "--ngpu", "4", "--print"]
    for more, torchrun in ((["--one_process"], False), ([], True)):
        assert main([*words, *more, "--", "espnet", "asr", "--ngpu", "4"]) == 0
        script = capsys.readouterr().out
        assert "--gpus-per-node=4" in script
        assert ("torch.distributed.run" in script) == torchrun


def test_slurm_runs_the_script_and_passes_its_exit_code(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", "--backend", "slurm", "--", "list", "corpora"]) == 0
    assert "librispeech" in capfd.readouterr().out
    assert main(["launch", "--backend", "slurm", "--name", "wrong", "--", "list", "nothing"]) == 2
    assert (cluster / "exp/log/wrong.sbatch").is_file()


def test_a_warned_job_saves_before_it_is_queued_again(cluster: Path) -> None:
    """The command inside is ended by SIGTERM, has its time to save, and only then the job is requeued."""
    saver = (
        "import signal, sys, time, pathlib\n"
        "def save(*_):\n    time.sleep(0.5); pathlib.Path('saved').write_text('x'); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, save)\npathlib.Path('ready').write_text('x')\ntime.sleep(60)\n"
    )
    (cluster / "saver.py").write_text(saver)
    script = launch.slurm_script(launch.Job(["list", "corpora"]))
    script = script.replace("-m sslbench list corpora", "saver.py")
    (cluster / "job.sbatch").write_text(script)
    environment = {**os.environ, "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "x"}
    with subprocess.Popen(["bash", "job.sbatch"], env=environment) as job:
        for _ in range(200):
            if (cluster / "ready").exists():
                break
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        assert job.wait(20) == 0
    assert (cluster / "saved").stat().st_mtime <= (cluster / "requeued").stat().st_mtime
    assert (cluster / "requeued").read_text() == "requeue 7\n"


def test_ctrl_c_reaches_a_local_run_once(tmp_path: Path) -> None:
    """A run that hears it twice ends without saving."""
    count = (
        "import signal, time, pathlib, sys\nheard = []\n"
        "signal.signal(signal.SIGINT, lambda *_: heard.append(1))\npathlib.Path('ready').write_text('x')\n"
        "time.sleep(1.5)\nsys.exit(10 + len(heard))\n"
    )
    (tmp_path / "count.py").write_text(count)
    script = (
        "import sys\nfrom sslbench import launch\n"
        "launch.Job.process = lambda *_: [sys.executable, 'count.py']\n"
        "sys.exit(launch.local(launch.Job(['x'])))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, start_new_session=True) as group:
        for _ in range(400):
            if (tmp_path / "ready").exists():
                break
            time.sleep(0.05)
        os.killpg(group.pid, signal.SIGINT)  # as a terminal does
        assert group.wait(20) == 11


def test_two_nodes_meet_over_ssh(cluster: Path) -> None:
    arguments = [
        "--backend",
        "ssh",
        "--num_nodes",
        "2",
        "--hosts",
        "localhost,me@localhost",
        "--name",
        "pair",
    ]
    assert main(["launch", *arguments, "--", "list", "corpora"]) == 0
    logs = [(cluster / f"exp/log/pair.{rank}.log").read_text() for rank in (0, 1)]
    assert all("librispeech" in log for log in logs)


def test_a_node_that_fails_ends_the_others(cluster: Path) -> None:
    job = launch.Job(["x"], num_nodes=2, hosts=["a", "b"])
    slow, broken = [sys.executable, "-c", "import time; time.sleep(60)"], [sys.executable, "-c", "exit(3)"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "ssh_commands", lambda _: [slow, broken])
        began = time.monotonic()
        assert launch.ssh(job) == 3
    assert time.monotonic() - began < 30


def test_what_cannot_be_launched_is_said(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--num_nodes", "2", "--", "list", "corpora"], "need --backend slurm or ssh"),
        (
            ["--backend", "ssh", "--num_nodes", "2", "--hosts", "a", "--", "list", "corpora"],
            "as many --hosts",
        ),
        (["--name", "a/b", "--", "list", "corpora"], "fit for a file name"),
        (["--"], "nothing to run"),
    ):
        assert main(["launch", *arguments]) == 2
        assert words in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(SslbenchError, match="no sbatch here"):
            launch.slurm(launch.Job(["list"]))
