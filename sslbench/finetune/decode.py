"""Transcribing a manifest: texts stream to disk, an interrupted run goes on, speed is measured."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from sslbench import config as configs
from sslbench.data.loading import SkipLog
from sslbench.data.manifests import describe, open_manifest
from sslbench.errors import CorruptFileError
from sslbench.finetune.config import identity
from sslbench.finetune.data import Batch, LabelledSet
from sslbench.finetune.decoders.choose import DecodeSettings, Search, make_search
from sslbench.finetune.experiment import Experiment
from sslbench.finetune.model import Recognizer
from sslbench.finetune.vocab import Vocab
from sslbench.io import read_jsonl, sha256_file, sha256_json, write_json, write_jsonl
from sslbench.nn.upstream import weights_of
from sslbench.progress import Progress

LEAST_BATCH_S = 60.0  # without gradients there is room, and short batches do not keep a processor busy


def batch_states(model: Recognizer, batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """States (B, F, L, D) and frames (B,) of a batch, from the cache or from the upstream."""
    if batch.states is not None:
        return batch.states.to(device), batch.lens.to(device)
    return model.states(batch.audio.to(device), batch.lens)  # type: ignore[union-attr]


@torch.no_grad()
def transcribe(
    model: Recognizer, vocab: Vocab, data: LabelledSet, device: torch.device, search: Search | None = None
) -> Iterator[tuple[str, str]]:
    """Yield (cut id, text) for every readable clip, in batch order; greedily without a `search`."""
    model.eval()
    search = search or make_search(model.head, vocab, DecodeSettings())[1]
    for batch in data.epoch(0):
        texts = search(*model.encode(*batch_states(model, batch, device)))
        for cut, text in zip(batch.cuts, texts, strict=True):
            yield cut.id, text


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


@dataclass
class _Part:
    """Texts found so far, in a file that grows with them and is removed when all are there."""

    path: Path
    key: str
    """What they depend on; a file with another key is not gone on with."""
    texts: dict[str, str] = field(default_factory=dict)
    wall_s: float = 0.0
    """Spent by earlier runs."""

    def resume(self) -> None:
        """Take over what an interrupted run left."""
        try:
            rows = list(read_jsonl(self.path)) if self.path.is_file() else []
        except CorruptFileError:
            rows = []
        if not rows or rows[0].get("key") != self.key:
            write_jsonl(self.path, [{"key": self.key}])
            return
        for row in rows[1:]:
            self.texts[row["id"]], self.wall_s = row["text"], row["wall_s"]
        write_jsonl(self.path, rows)  # without a torn last line

    def extend(self, found: Iterator[tuple[str, str]], progress: Progress) -> None:
        """Write texts as they come."""
        began = time.perf_counter() - self.wall_s
        with self.path.open("a", encoding="utf-8") as stream:
            for identifier, text in found:
                self.texts[identifier], self.wall_s = text, time.perf_counter() - began
                row = {"id": identifier, "text": text, "wall_s": round(self.wall_s, 4)}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                stream.flush()
                progress.advance()


def meta_path(hypotheses: Path | str) -> Path:
    """Where the facts about a hypothesis file lie: `HYP.meta.json`."""
    path = Path(hypotheses)
    return path.with_name(path.name.removesuffix(".jsonl") + ".meta.json")


def decode(
    experiment: Experiment,
    manifest: Path | str,
    out: Path | str,
    max_duration_s: float | None = None,
    settings: DecodeSettings | None = None,
) -> Decoded:
    """Transcribe a manifest into JSON lines (`id`, `text`) in the manifest's order.

    Texts appear in `HYP.part` as they are found, and an interrupted run goes on from there. `HYP.meta.json`
    says which weights, data and settings made the file: `score` stamps rows with that.

    Args:
        experiment: the recognizer.
        manifest: cuts; transcripts are not needed and not used.
        out: the hypotheses.
        max_duration_s: audio per batch; by default the training's, or 60 s where that is less.
        settings: of the search; greedy by default.

    Raises:
        SslbenchError: missing manifest, a search that the head cannot do, or too many unreadable clips (all
            are named beside `out`).
    """
    out, settings = Path(out), settings or DecodeSettings()
    name, search = make_search(experiment.model.head, experiment.vocab, settings)
    facts = _facts(experiment, manifest, name, settings)
    cuts = list(open_manifest(manifest))
    limit = max_duration_s or max(LEAST_BATCH_S, experiment.config.max_duration_s)
    part = _Part(out.with_name(out.name + ".part"), sha256_json([facts, limit]))
    part.resume()
    skip_log = SkipLog(out.with_name(out.name + ".skipped.jsonl"), experiment.config.max_skipped_share)
    data = LabelledSet([cut for cut in cuts if cut.id not in part.texts], {}, limit, skip_log=skip_log)
    with Progress("decode", len(cuts), len(part.texts)) as progress:
        if data.cuts:
            found = transcribe(experiment.model, experiment.vocab, data, experiment.device, search)
            part.extend(found, progress)
    texts = part.texts
    audio_s = sum(cut.duration for cut in cuts if cut.id in texts)
    write_jsonl(out, [{"id": cut.id, "text": texts[cut.id]} for cut in cuts if cut.id in texts])
    decoded = Decoded(out, len(texts), audio_s, part.wall_s, skip_log.count)
    cost = {"rtf": decoded.rtf, "audio_s": audio_s, "wall_s": part.wall_s, "skipped": decoded.skipped}
    write_json(meta_path(out), {**facts, **cost})
    part.path.unlink()
    return decoded


def _facts(
    experiment: Experiment, manifest: Path | str, decoder: str, settings: DecodeSettings
) -> dict[str, Any]:
    about, config = describe(manifest), experiment.config
    weights, weights_sha256 = weights_of(experiment.model.any_upstream)
    searched = asdict(settings)
    if settings.lm:
        searched["lm_sha256"] = sha256_file(settings.lm)
    methods: dict[str, str] = {"tune": config.tune, "objective": config.objective, "units": config.units}
    if config.objective != "ctc":
        methods["transducer_loss"] = config.transducer_loss
    return {
        "experiment": str(experiment.folder),
        "step": experiment.step,
        "upstream": config.upstream,
        "weights": weights,
        "weights_sha256": weights_sha256,
        "config_sha256": sha256_json(identity(configs.to_dict(config))),
        "seed": config.seed,
        "manifest": str(manifest),
        "data": about.data.model_dump(),
        "data_sha256": about.sha256,
        "decoder": decoder,
        "search_settings": searched,
        "methods": methods,
        "scored": experiment.vocab.scored,
        "device": str(experiment.device),
        "train": experiment.done,
        "search": experiment.search,
    }
