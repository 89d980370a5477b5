"""Streaming k-means: one pool of frames in memory, whatever the size of the corpus.

Frames are pooled clip by clip in a seeded random order. The first full pool starts the clusters
(k-means++, several starts, mini-batches until they settle); every further pool moves them on by
mini-batch updates whose step shrinks with the frames seen (Sculley 2010; scikit-learn's
`MiniBatchKMeans.partial_fit`). ESPnet's and fairseq's scripts hold all features at once instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslbench.config import to_dict
from sslbench.data.loading import BatchLoader, SkipLog
from sslbench.data.manifests import describe, open_manifest
from sslbench.data.units.features import Features
from sslbench.data.units.model import FACTS, NORMALIZE, UnitModel, normalized, standardized
from sslbench.errors import SslbenchError
from sslbench.io import read_yaml, sha256_json
from sslbench.progress import Progress

BATCH_DURATION_S = 120.0


@dataclass
class FitSettings:
    """What decides the units, besides feature and data."""

    clusters: int = 100
    """Number of units; HuBERT uses 100 on MFCC, then 500."""
    seed: int = 0
    """Of the data order, the starts and the mini-batches."""
    limit_hours: float | None = None
    """Stop after this much audio (a seeded random part of the corpus); None takes all."""
    normalize: str = ""
    """"utterance", "global" or "none"; empty takes the feature's usual one."""
    pool_frames: int = 400_000
    """Frames held at once: 62 MB for MFCC, 1.2 GB for 768 dimensions. The corpus may be of any size."""
    batch_frames: int = 10_000
    """Frames per mini-batch update (fairseq's learn_kmeans.py: 10,000)."""
    starts: int = 3
    """k-means++ starts on the first pool, the best is kept."""
    max_passes: int = 30
    """Passes over the first pool at most."""


def fit_units(manifest: Path | str, features: Features, out: Path | str, settings: FitSettings) -> UnitModel:
    """Fit units on a manifest and write them to `out`; a finished equal fit is returned as it is.

    Unreadable clips are skipped and named in `out/skipped.jsonl`.

    Raises:
        SslbenchError: too little audio for the clusters, too many unreadable clips, or `out` holds units
            of another request.
    """
    how = settings.normalize or features.normalize
    if how not in NORMALIZE or settings.clusters < 2:
        raise SslbenchError(f"units fit: needs --clusters ≥ 2 and --normalize one of {', '.join(NORMALIZE)}")
    described = describe(manifest)
    asked = {"manifest_sha256": described.sha256, **features.facts(), **to_dict(settings), "normalize": how}
    request = sha256_json(asked)
    out = Path(out)
    if (out / FACTS).is_file():
        if read_yaml(out / FACTS).get("request_sha256") != request:
            raise SslbenchError(f"{out}: holds units of another request; choose another --out or remove it")
        return UnitModel.load(out)

    started = time.monotonic()
    skip_log = SkipLog(out / "skipped.jsonl")
    stream = _Stream(manifest, features, settings, skip_log, described.data.hours)
    model = _cluster(iter(stream), settings, how)
    model.facts = {
        **asked,
        **model.facts,
        "request_sha256": request,
        "corpus": described.data.corpus,
        "split": described.data.split,
        "hours": round(stream.seconds / 3600, 6),
        "cuts": stream.cuts,
        "skipped": skip_log.count,
        "fit_wall_s": round(time.monotonic() - started, 3),
    }
    model.save(out)
    return model


class _Stream:
    """The frames of a manifest clip by clip, in a seeded order, up to the limit."""

    def __init__(
        self, manifest: Path | str, features: Features, settings: FitSettings, skips: SkipLog, hours: float
    ) -> None:
        self.loader = BatchLoader(
            open_manifest(manifest), BATCH_DURATION_S, shuffle=True, seed=settings.seed, skip_log=skips
        )
        self.features = features
        self.limit_s = float("inf") if settings.limit_hours is None else settings.limit_hours * 3600
        self.total_s = min(self.limit_s, hours * 3600)
        self.seconds, self.cuts = 0.0, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        with Progress("units: seconds read", int(self.total_s)) as progress:
            for batch in self.loader.epoch(0):
                wavs = [wav[: int(n)] for wav, n in zip(batch.audio, batch.audio_lens, strict=True)]
                before = int(self.seconds)
                for cut, frames in zip(batch.cuts, self.features.frames(wavs), strict=True):
                    self.seconds, self.cuts = self.seconds + cut.duration, self.cuts + 1
                    yield frames
                    if self.seconds >= self.limit_s:
                        return
                progress.advance(int(self.seconds) - before)


def _cluster(clips: Iterator[torch.Tensor], settings: FitSettings, how: str) -> UnitModel:
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    kmeans = MiniBatchKMeans(
        settings.clusters,
        max_iter=settings.max_passes,
        batch_size=settings.batch_frames,
        n_init=settings.starts,
        random_state=settings.seed,
        reassignment_ratio=0.0,  # as fairseq; the report counts clusters that stay empty
        compute_labels=False,
    )
    order = np.random.default_rng(settings.seed)
    moments: tuple[torch.Tensor, torch.Tensor] | None = None
    frames_seen, inertia = 0, 0.0
    for pool in _pools(clips, settings, how):
        if moments is None:
            moments = _moments(pool, how)
        points = normalized(pool, "global", *moments).numpy()
        # one thread: sums in another order would give other labels
        with threadpool_limits(1):
            if frames_seen == 0:
                kmeans.fit(points)
            else:
                shuffled = points[order.permutation(len(points))]
                for start in range(0, len(points), settings.batch_frames):
                    kmeans.partial_fit(shuffled[start : start + settings.batch_frames])
            inertia += -float(kmeans.score(points))
        frames_seen += len(points)
    if moments is None:
        raise SslbenchError("units fit: the manifest gave no frames")
    centroids = torch.from_numpy(np.ascontiguousarray(kmeans.cluster_centers_, dtype=np.float32))
    facts: dict[str, Any] = {"frames": frames_seen, "inertia_per_frame": round(inertia / frames_seen, 6)}
    return UnitModel(centroids, *moments, normalize=how, facts=facts)


def _pools(clips: Iterator[torch.Tensor], settings: FitSettings, how: str) -> Iterator[torch.Tensor]:
    """Frames in pools of `pool_frames`, (N, D); only the first may be smaller than the clusters."""
    held: list[torch.Tensor] = []
    count = pools = 0
    for frames in clips:
        held.append(standardized(frames) if how == "utterance" else frames)
        count += len(frames)
        if count >= settings.pool_frames:
            yield torch.cat(held)
            held, count, pools = [], 0, pools + 1
    if pools == 0 and count < settings.clusters:
        raise SslbenchError(
            f"units fit: {count} frames cannot make {settings.clusters} clusters; give more audio"
        )
    if held:
        yield torch.cat(held)


def _moments(pool: torch.Tensor, how: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and scale of the global normalisation, from the first pool."""
    if how != "global":
        return torch.zeros(pool.shape[1]), torch.ones(pool.shape[1])
    return pool.mean(0), pool.std(0, correction=0).clamp_min(1e-5)
