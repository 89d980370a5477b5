"""The command line: one file per verb, imported only when it is used."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from sslbench import __version__
from sslbench.errors import SslbenchError, did_you_mean

VERBS = {
    "list": "upstreams, tasks, corpora and recipes",
    "doctor": "what is installed, what is missing, how to get it",
    "check": "hold an upstream against the contract, point by point",
    "data": "prepare corpora as lhotse manifests",
    "units": "k-means units: fit, apply, report",
    "pretrain": "train an encoder (torchrun-ready; resumes by itself)",
    "plan": "what a pretraining configuration will take",
    "launch": "a verb on several GPUs or machines (torchrun, Slurm, ssh)",
    "export": "a training run as an upstream checkpoint",
    "convert": "checkpoints of other toolkits as upstream checkpoints, and back",
    "extract": "every layer's features of audio files",
    "finetune": "train a recognizer on an upstream",
    "decode": "transcribe a manifest",
    "lm": "a word n-gram model from transcripts",
    "score": "WER of hypotheses against references",
    "superb": "the SUPERB tasks on a frozen upstream",
    "profile": "parameters, MACs, speed, memory",
    "compare": "result rows side by side",
    "report": "RESULTS.md, tables and one HTML page from result rows",
    "espnet": "ESPnet's own trainers and data format with our upstreams",
}

USAGE = """usage: sslbench VERB [options]      (sslbench VERB --help shows examples)

How good is a speech SSL encoder, what does it cost, and is the difference real?

{verbs}

  sslbench --version
"""


def underscored(words: Sequence[str]) -> list[str]:
    """Options as we spell them: `--max-steps=5` as `--max_steps=5`. What follows a lone `--` is another
    program's."""
    end = list(words).index("--") if "--" in words else len(words)
    return [*(_spelt(word) for word in words[:end]), *words[end:]]


def _spelt(word: str) -> str:
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit status: 0 done, 1 a check failed, 2 wrong input, 130 interrupted; an
    outside program's own status where a verb runs one (`espnet`, `launch`)."""
    words = underscored(sys.argv[1:] if argv is None else argv)
    warnings.formatwarning = lambda message, *_, **__: f"sslbench: warning: {message}\n"
    if words == ["--version"]:
        print(__version__)
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE.format(verbs="\n".join(f"  {verb:9} {line}" for verb, line in VERBS.items())), end="")
        return 0
    verb = words[0]
    try:
        if verb not in VERBS:
            raise SslbenchError(f"no verb {verb!r}; {did_you_mean(verb, VERBS)}")
        module = importlib.import_module(
            f"sslbench.cli.{verb}_" if verb == "list" else f"sslbench.cli.{verb}"
        )
        status: int | None = module.main(words[1:])
        return status or 0
    except SslbenchError as error:
        print(f"sslbench: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `sslbench … | head` is no fault
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives until the interpreter's last flush
        return 0
    except OSError as error:  # a folder where a file is meant, no permission, a full disk
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"sslbench: error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"sslbench: {verb} interrupted; run the same command again to go on", file=sys.stderr)
        return 130
