"""An experiment folder: what a run leaves behind, and the recognizer rebuilt from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslbench import config as configs
from sslbench.checkpoint import load_strict
from sslbench.device import pick_device
from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.model import Recognizer
from sslbench.finetune.vocab import Vocab
from sslbench.io import read_json, write_json
from sslbench.nn.upstream import weights_of
from sslbench.train import checkpoint
from sslbench.upstreams import load_upstream

CONFIG, VOCAB, LOG, SKIPPED, DONE, SEARCH = (
    "config.yaml", "vocab.json", "log.jsonl", "skipped.jsonl", "DONE", "search.json",
)  # fmt: skip
CHECKPOINTS, BEST, UPSTREAM = "checkpoints", "best", "upstream.json"


def skipped_name(rank: int) -> str:
    """Where a process names the clips that it could not use."""
    return SKIPPED if rank == 0 else f"skipped-{rank}.jsonl"


def build_recognizer(config: FinetuneConfig, vocab: Vocab) -> Recognizer:
    """The upstream with a fresh head; the head's weights depend on the seed only."""
    options: dict[str, Any] = {} if config.ckpt else {"seed": config.seed}
    upstream = load_upstream(config.upstream, config.ckpt, frozen=config.tune != "full", **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Recognizer(upstream, len(vocab), config)


def begun(folder: Path, data: Mapping[str, str]) -> bool:
    """Whether a folder holds a run, finished or not; then it must have been begun on the same data.

    Args:
        folder: of the run.
        data: `train_sha256` and `dev_sha256` of what the manifests hold now.

    Raises:
        SslbenchError: it was begun on other data, or has learned already and nothing says on what.
    """
    path = folder / (DONE if (folder / DONE).is_file() else UPSTREAM)
    if not path.is_file():
        if checkpoint.steps_in(folder / CHECKPOINTS):
            raise SslbenchError(
                f"{folder}: lacks {UPSTREAM}, which says on what weights and data it was begun; "
                "train again in another folder"
            )
        return False
    was = read_json(path)
    changed = [key.removesuffix("_sha256") for key, now in data.items() if was.get(key) != now]
    if changed:
        raise SslbenchError(
            f"{folder}: was begun on other content of the {' and the '.join(changed)} manifest; "
            "bring that back, or train again in another folder"
        )
    return True


def pin(folder: Path, name: str, upstream: nn.Module, data: Mapping[str, str]) -> None:
    """Write down which upstream weights and data (see `begun`) a run is made with, the last of what a run
    needs before it can learn; where that is written, the weights must be the same.

    Raises:
        SslbenchError: they are others.
    """
    if (folder / UPSTREAM).is_file():
        check_upstream(folder, name, upstream)
    else:
        write_json(folder / UPSTREAM, {"upstream": name, "weights": weights_of(upstream), **data})


def check_upstream(folder: Path, name: str, upstream: nn.Module) -> None:
    """Raise `SslbenchError` when an upstream no longer has the weights that a run was made with: its
    checkpoint was written anew, or published anew."""
    path, now = folder / UPSTREAM, list(weights_of(upstream))
    was = read_json(path)["weights"] if path.is_file() else now
    if was != now:
        then, here = (f"{kind} ({str(sha256)[:12]})" if sha256 else str(kind) for kind, sha256 in (was, now))
        raise SslbenchError(
            f"{folder}: was trained on {name} with weights {then}, which now has {here}; "
            "bring those weights back, or train again in another folder"
        )


@dataclass
class Experiment:
    """A finished (or best so far) run, ready to decode."""

    folder: Path
    config: FinetuneConfig
    vocab: Vocab
    model: Recognizer
    step: int
    """Of the weights: the one with the best dev WER."""
    device: torch.device
    done: dict[str, Any]
    """Content of `DONE`: cost of the training; empty while it runs."""
    search: dict[str, Any] | None
    """Content of `search.json`, when learning rates were compared."""


def load_experiment(exp_dir: Path | str, device: str | None = None) -> Experiment:
    """Rebuild the recognizer with the best dev WER of a run, or of a run's learning rates.

    Args:
        exp_dir: of `sslbench finetune`.
        device: instead of the run's own setting.

    Raises:
        SslbenchError: not such a folder, nothing was evaluated yet, or the upstream's weights have changed.
        CorruptFileError: the checkpoint does not match its checksum.
    """
    folder, search = Path(exp_dir), None
    if (folder / SEARCH).is_file():
        search = read_json(folder / SEARCH)
        folder = folder / search["chosen"]
    steps = checkpoint.steps_in(folder / BEST)
    if not (folder / CONFIG).is_file() or not steps:
        raise SslbenchError(f"{folder}: holds no trained recognizer; 'sslbench finetune' makes one")
    config = configs.load(FinetuneConfig, folder / CONFIG)
    vocab = Vocab.load(folder / VOCAB)
    model = build_recognizer(config, vocab)
    check_upstream(folder, config.upstream, model.any_upstream)
    best = checkpoint.folder_of(folder / BEST, steps[-1])
    load_strict(model, checkpoint.load(best).model, where=str(best))
    place = pick_device(device or config.device)
    model.to_device(place).eval()
    done = read_json(folder / DONE) if (folder / DONE).is_file() else {}
    return Experiment(folder, config, vocab, model, steps[-1], place, done, search)
