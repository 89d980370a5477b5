"""One command on several processes: here, through Slurm, or over ssh; torchrun starts them on every node."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sslbench.errors import SslbenchError
from sslbench.io import write_text
from sslbench.signals import heeding

PORT = 29513
"""Of the rendezvous on the first node."""
NOTICE_S = 180
"""Time that Slurm leaves between its warning and the kill: enough to finish an update and save."""


@dataclass
class Job:
    """What to run, and on how much."""

    command: list[str]
    """An sslbench command line: `["pretrain", "--config", …]`."""
    ngpu: int = 0
    """GPUs per node, one process each (see `one_process`); 0 runs one process on the CPU."""
    num_nodes: int = 1
    """Machines."""
    name: str = "sslbench"
    """Shown by the scheduler, and the stem of script and log."""
    log_dir: Path = Path("exp/log")
    """Where script and log go (slurm, ssh)."""
    hosts: list[str] = field(default_factory=list)
    """ssh: one per node; the first is where the processes meet."""
    sbatch_opts: str = ""
    """slurm: more lines of options, for example `--partition=gpu --time=24:00:00`."""
    one_process: bool = False
    """One process per node, for a command that uses all of its GPUs by itself, as ESPnet does."""

    def __post_init__(self) -> None:
        if self.num_nodes < 1 or self.ngpu < 0 or not self.command:
            raise SslbenchError("launch: needs a command, --num_nodes of at least 1 and --ngpu of at least 0")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise SslbenchError(f"launch: --name {self.name!r} must be fit for a file name")

    def process(self, meeting: str = "") -> list[str]:
        """The command line of one node.

        Args:
            meeting: HOST:PORT of the rendezvous, for several nodes.
        """
        per_node = 1 if self.one_process else max(1, self.ngpu)
        if per_node * self.num_nodes == 1:
            return [sys.executable, "-m", "sslbench", *self.command]
        nodes = [f"--nnodes={self.num_nodes}", f"--nproc_per_node={per_node}"]
        if self.num_nodes == 1:
            nodes.append("--standalone")
        else:
            nodes += ["--rdzv_backend=c10d", f"--rdzv_endpoint={meeting}", f"--rdzv_id={self.name}"]
        return [sys.executable, "-m", "torch.distributed.run", *nodes, "-m", "sslbench", *self.command]


def local(job: Job) -> int:
    """Run on this machine. Returns the exit code.

    Raises:
        SslbenchError: several nodes are asked for.
    """
    if job.num_nodes > 1:
        raise SslbenchError("launch: several nodes need --backend slurm or ssh (cmd_backend in cmd.sh)")
    # a session of its own: Ctrl-C in a terminal reaches every process of ours there, and with `_wait` passing
    # it on a run would hear it twice, which means "now, without saving"
    with subprocess.Popen(job.process(), start_new_session=True) as process:
        return _wait([process])


def slurm_script(job: Job) -> str:
    """A batch script that asks for a warning before the end, lets the run save, and queues itself again.

    Ctrl-C on the waiting side cancels nothing: the job belongs to Slurm.
    """
    extra = [f"#SBATCH {option}" for option in shlex.split(job.sbatch_opts)]
    gpus = [f"#SBATCH --gpus-per-node={job.ngpu}"] if job.ngpu else []
    command = shlex.join(job.process("$MEETING"))
    command = command.replace("'--rdzv_endpoint=$MEETING'", '"--rdzv_endpoint=$MEETING"')
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={job.name}",
        f"#SBATCH --nodes={job.num_nodes}",
        "#SBATCH --ntasks-per-node=1",
        *gpus,
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --signal=B:TERM@{NOTICE_S}",
        f"#SBATCH --output={(job.log_dir / f'{job.name}.log').resolve()}",
        *extra,
        f"cd {shlex.quote(os.getcwd())}",
        'export MEETING="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):' + f'{PORT}"',
        f"srun {command} &",
        "child=$!",
        # by scancel, which signals the job's steps: srun answers a SIGTERM of its own by killing the tasks
        "save() { scancel --signal=TERM $SLURM_JOB_ID; wait $child; }",
        "again() { save; scontrol requeue $SLURM_JOB_ID; exit 0; }",
        "trap again TERM",
        "wait $child",
    ]
    return "\n".join(lines) + "\n"


def slurm(job: Job) -> int:
    """Submit, wait, and return the job's exit code.

    Raises:
        SslbenchError: this machine has no `sbatch`.
    """
    script = job.log_dir / f"{job.name}.sbatch"
    write_text(script, slurm_script(job))
    print(f"launch: {script}; log: {job.log_dir / f'{job.name}.log'}", file=sys.stderr, flush=True)
    try:
        return subprocess.run(["sbatch", "--wait", str(script)]).returncode
    except FileNotFoundError:
        raise SslbenchError(
            "launch: no sbatch here; run on a Slurm login node, or use --backend local or ssh"
        ) from None


def ssh_commands(job: Job) -> list[list[str]]:
    """One ssh command per node; every node needs this folder and this Python at the same path.

    Raises:
        SslbenchError: not one host per node.
    """
    if len(job.hosts) != job.num_nodes:
        raise SslbenchError(f"launch: {job.num_nodes} nodes need as many --hosts, got {len(job.hosts)}")
    meeting = f"{job.hosts[0].rpartition('@')[2]}:{PORT}"
    kept = [f"{name}={value}" for name, value in os.environ.items() if name in ("OMP_NUM_THREADS", "PATH")]
    # a terminal (-tt) makes the remote side end with this one
    remote = (
        f"cd {shlex.quote(os.getcwd())} && exec env {shlex.join(kept)} {shlex.join(job.process(meeting))}"
    )
    return [["ssh", "-tt", "-o", "BatchMode=yes", host, remote] for host in job.hosts]


def ssh(job: Job) -> int:
    """Start every node, wait for all; when one fails the others are ended. Returns the first failure.

    Raises:
        SslbenchError: not one host per node, or no `ssh`.
    """
    commands = ssh_commands(job)
    job.log_dir.mkdir(parents=True, exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for rank, command in enumerate(commands):
            log = job.log_dir / f"{job.name}.{rank}.log"
            print(f"launch: node {rank} on {job.hosts[rank]}; log: {log}", file=sys.stderr, flush=True)
            with log.open("ab") as output:
                process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
                started.append(process)
    except FileNotFoundError:
        raise SslbenchError("launch: no ssh here") from None
    return _wait(started)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all, passing on what asks to stop; the first that fails ends the rest."""

    def pass_on(number: int, _: object) -> None:
        for process in processes:
            process.send_signal(number)

    failed = 0
    waiting = list(processes)
    with heeding(pass_on):
        while waiting:
            for process in list(waiting):
                try:
                    code = process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
                waiting.remove(process)
                if code and not failed:
                    failed = code
                    for other in waiting:
                        other.terminate()
    return failed if failed >= 0 else 128 - failed


BACKENDS = {"local": local, "slurm": slurm, "ssh": ssh}
