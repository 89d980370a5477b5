"""`sslbench launch`: a verb on several GPUs or machines."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from sslbench.cli._parser import Parser
from sslbench.errors import SslbenchError

EPILOG = """examples:
  sslbench launch --ngpu 8 -- pretrain --config conf/pretrain.yaml
  sslbench launch --backend slurm --ngpu 8 --num_nodes 4 --sbatch_opts "--partition=gpu --time=24:00:00" \\
      --name zipformer -- pretrain --config conf/pretrain.yaml
  sslbench launch --backend ssh --hosts a,b --num_nodes 2 --ngpu 4 -- pretrain --config conf/pretrain.yaml
  sslbench launch --backend slurm --ngpu 4 --one_process -- espnet asr --ngpu 4 --upstream zipformer_base …
  sslbench launch --backend slurm --ngpu 1 --print -- superb run --tasks pr    (only show the script)

Recipes call this with the cmd_backend and launch_opts of their cmd.sh. A Slurm job is warned before its time
is up, saves a checkpoint and queues itself again; the same command goes on from there.
"""


def parser() -> argparse.ArgumentParser:
    """The verb's options."""
    options = Parser(
        prog="sslbench launch",
        description="Run an sslbench verb here, through Slurm or over ssh, one process per GPU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "--backend", choices=["local", "slurm", "ssh"], default="local", help="where it runs (default here)"
    )
    options.add_argument("--ngpu", type=int, default=0, help="GPUs per node; 0 for the CPU (default)")
    options.add_argument(
        "--one_process", action="store_true", help="one process per node, which itself uses all GPUs"
    )
    options.add_argument("--num_nodes", type=int, default=1, help="machines (default 1)")
    options.add_argument("--hosts", default="", help="ssh: comma-separated, one per node")
    options.add_argument("--sbatch_opts", default="", help="slurm: more options, in one string")
    options.add_argument("--name", default="sslbench", help="of the job, its script and its log")
    options.add_argument("--log_dir", type=Path, default=Path("exp/log"), help="default exp/log")
    options.add_argument("--print", action="store_true", help="show what would be run, and run nothing")
    options.add_argument("command", nargs=argparse.REMAINDER, metavar="-- VERB [options]", help="what to run")
    return options


def main(argv: list[str]) -> int:
    """Run it; returns the command's exit code."""
    chosen = parser().parse_args(argv)

    from sslbench import launch

    words = chosen.command[1:] if chosen.command[:1] == ["--"] else chosen.command
    words = words[1:] if words[:1] == ["sslbench"] else words
    if not words:
        raise SslbenchError("launch: nothing to run; put the verb after '--'")
    hosts = [host for host in chosen.hosts.split(",") if host]
    job = launch.Job(
        words, chosen.ngpu, chosen.num_nodes, chosen.name, chosen.log_dir, hosts, chosen.sbatch_opts,
        chosen.one_process,
    )  # fmt: skip
    if not chosen.print:
        return launch.BACKENDS[chosen.backend](job)
    if chosen.backend == "slurm":
        print(launch.slurm_script(job), end="")
    else:
        lines = launch.ssh_commands(job) if chosen.backend == "ssh" else [job.process()]
        print("\n".join(shlex.join(line) for line in lines))
    return 0
