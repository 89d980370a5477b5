"""Transcribing: batched greedy CTC, with the real-time factor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sslbench import config as configs
from sslbench.data.loading import SkipLog
from sslbench.data.manifests import describe, open_manifest
from sslbench.finetune.config import identity
from sslbench.finetune.data import Batch, LabelledSet
from sslbench.finetune.experiment import Experiment, weights_of
from sslbench.finetune.model import Recognizer, greedy
from sslbench.finetune.vocab import CharVocab
from sslbench.io import sha256_json, write_json, write_jsonl
from sslbench.progress import Progress


def batch_states(model: Recognizer, batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """States (B, F, L, D) and frames (B,) of a batch, from the cache or from the upstream."""
    if batch.states is not None:
        return batch.states.to(device), batch.lens.to(device)
    return model.states(batch.audio.to(device), batch.lens)  # type: ignore[union-attr]


@torch.no_grad()
def transcribe(
    model: Recognizer, vocab: CharVocab, data: LabelledSet, device: torch.device
) -> Iterator[tuple[str, str]]:
    """Yield (cut id, text) for every readable clip, in batch order."""
    model.eval()
    for batch in data.epoch(0):
        found = greedy(*model.log_probs(*batch_states(model, batch, device)))
        for cut, classes in zip(batch.cuts, found, strict=True):
            yield cut.id, vocab.decode(classes)


@dataclass(frozen=True)
class Decoded:
    """What `decode` wrote."""

    path: Path
    utterances: int
    audio_s: float
    wall_s: float
    skipped: int

    @property
    def rtf(self) -> float:
        """Seconds of work per second of audio: reading, features, head and decoding."""
        return self.wall_s / self.audio_s


def meta_path(hypotheses: Path | str) -> Path:
    """Where the facts about a hypothesis file lie: `HYP.meta.json`."""
    path = Path(hypotheses)
    return path.with_name(path.name.removesuffix(".jsonl") + ".meta.json")


def decode(
    experiment: Experiment, manifest: Path | str, out: Path | str, max_duration_s: float | None = None
) -> Decoded:
    """Transcribe a manifest into JSON lines (`id`, `text`) in the manifest's order.

    `HYP.meta.json` beside it says which weights, data and settings made it: `score` stamps rows with that.

    Args:
        experiment: the recognizer.
        manifest: cuts; transcripts are not needed and not used.
        out: the hypotheses.
        max_duration_s: audio per batch; the training's by default.

    Raises:
        SslbenchError: missing manifest, or too many unreadable clips (all are named beside `out`).
    """
    out = Path(out)
    skip_log = SkipLog(out.with_name(out.name + ".skipped.jsonl"), experiment.config.max_skipped_share)
    cuts = list(open_manifest(manifest))
    limit = max_duration_s or experiment.config.max_duration_s
    data = LabelledSet(cuts, {}, limit, skip_log=skip_log)
    found: dict[str, str] = {}
    began = time.perf_counter()
    with Progress("decode", len(cuts)) as progress:
        for identifier, text in transcribe(experiment.model, experiment.vocab, data, experiment.device):
            found[identifier] = text
            progress.advance()
    wall_s = time.perf_counter() - began
    audio_s = sum(cut.duration for cut in cuts if cut.id in found)
    write_jsonl(out, [{"id": cut.id, "text": found[cut.id]} for cut in cuts if cut.id in found])
    decoded = Decoded(out, len(found), audio_s, wall_s, skip_log.count)
    write_json(meta_path(out), _facts(experiment, manifest, decoded))
    return decoded


def _facts(experiment: Experiment, manifest: Path | str, decoded: Decoded) -> dict[str, Any]:
    about = describe(manifest)
    weights, weights_sha256 = weights_of(experiment.model.any_upstream)
    return {
        "experiment": str(experiment.folder),
        "step": experiment.step,
        "upstream": experiment.config.upstream,
        "weights": weights,
        "weights_sha256": weights_sha256,
        "config_sha256": sha256_json(identity(configs.to_dict(experiment.config))),
        "seed": experiment.config.seed,
        "manifest": str(manifest),
        "data": about.data.model_dump(),
        "data_sha256": about.sha256,
        "decoder": "greedy CTC",
        "device": str(experiment.device),
        "rtf": decoded.rtf,
        "audio_s": decoded.audio_s,
        "wall_s": decoded.wall_s,
        "skipped": decoded.skipped,
        "train": experiment.done,
        "search": experiment.search,
    }
