"""From cuts with units to what a pretraining model receives."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import torch
from lhotse.cut import Cut

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.data.loading import AudioBatch, BatchLoader, SkipLog
from sslbench.data.manifests import open_manifest
from sslbench.data.units.apply import KEY
from sslbench.data.units.external import length_fits
from sslbench.data.units.features import FRAME_SAMPLES, num_frames
from sslbench.device import send
from sslbench.errors import SslbenchError
from sslbench.nn.upstream import PretrainBatch
from sslbench.pretrain.config import PretrainConfig
from sslbench.train.dist import World

CHECKED_CUTS = 200
NO_LABEL = -1


def units_of(cut: Cut, manifest: str) -> torch.Tensor:
    """The units of a cut: (frames,) int64.

    Raises:
        SslbenchError: none, not numbers, or not about 50 per second; names cut and manifest.
    """
    mend = f"attach them with 'sslbench units apply --units DIR --manifest {manifest} --out LABELLED'"
    text = (cut.custom or {}).get(KEY)
    if not isinstance(text, str) or not text.strip():
        raise SslbenchError(f"{manifest}: cut {cut.id} has no units ({KEY!r}); {mend}")
    try:
        units = torch.tensor([int(word) for word in text.split()])
    except ValueError:
        raise SslbenchError(f"{manifest}: the units of cut {cut.id} are not whole numbers; {mend}") from None
    if not length_fits(len(units), round(cut.duration * SAMPLE_RATE_HZ)):  # whatever its recording's rate
        raise SslbenchError(
            f"{manifest}: cut {cut.id} has {len(units) / cut.duration:.1f} units per second "
            f"({len(units)} for {cut.duration:.2f} s), 50 expected; {mend}"
        )
    if int(units.min()) < 0:
        raise SslbenchError(f"{manifest}: cut {cut.id} has a negative unit; {mend}")
    return units


def check_units(manifest: str, num_units: int | None) -> None:
    """Check the first cuts of a manifest, so that a wrong one fails at once rather than hours later."""
    for cut in islice(open_manifest(manifest), CHECKED_CUTS):
        top = int(units_of(cut, manifest).max())
        if num_units is not None and top >= num_units:
            raise SslbenchError(
                f"{manifest}: cut {cut.id} has unit {top} but the model has num_units {num_units}; "
                "set model.num_units to the number of k-means clusters"
            )


def majority_share(manifest: str) -> float:
    """The share of the commonest unit: the accuracy of a model that learnt nothing else."""
    counts: Counter[int] = Counter()
    for cut in open_manifest(manifest):
        counts.update(units_of(cut, manifest).tolist())
    return max(counts.values()) / counts.total()


def make_loader(config: PretrainConfig, manifest: str, world: World, skip_log: SkipLog) -> BatchLoader:
    """Shuffled batches of the training manifest; in order, of the dev manifest."""
    training = manifest == config.train_manifest
    return BatchLoader(
        open_manifest(manifest),
        config.max_duration_s,
        shuffle=training,
        seed=config.seed,
        min_duration_s=config.min_duration_s,
        max_cut_duration_s=config.max_cut_duration_s,
        num_buckets=config.num_buckets,
        quadratic_duration_s=config.quadratic_duration_s,
        skip_log=skip_log,
        rank=world.rank,
        world_size=world.size,
        num_workers=config.num_workers if training else 0,
        keep_empty=True,
    )


def collate(batch: AudioBatch, config: PretrainConfig, manifest: str, device: torch.device) -> PretrainBatch:
    """Add the units and crop, and move the audio; draws from torch's generator when cropping.

    A batch without a readable cut becomes one second of a faint tone without labels, so that processes
    stay in step; its loss has to be multiplied by 0.
    """
    if len(batch) == 0:
        tone = (torch.arange(16_000) * 0.1).sin()[None] * 0.01
        return PretrainBatch(send(tone, device), torch.tensor([16_000]), torch.zeros(1, 50).long(), [])
    units = [units_of(cut, manifest) for cut in batch.cuts]
    audio, lens = batch.audio, batch.audio_lens
    if config.crop == "shortest":
        audio, lens, units = _crop(audio, lens, units, config.crop_s)
    frames = num_frames(audio.shape[1])
    labels = torch.full((len(units), frames), NO_LABEL)
    for row, line in zip(labels, units, strict=True):
        row[: len(line)] = line[:frames]
    ids = [str(cut.id) for cut in batch.cuts]
    return PretrainBatch(send(audio, device), lens, labels, ids)


def _crop(
    audio: torch.Tensor, lens: torch.Tensor, units: list[torch.Tensor], crop_s: float | None
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """A random piece of every clip, as long as the shortest; units start at the nearest frame (k2SSL)."""
    size = int(lens.min())
    if crop_s is not None:
        size = min(size, round(crop_s * 16_000))
    starts = (torch.rand(len(lens)) * (lens - size + 1)).long().tolist()
    cropped = torch.stack([row[start : start + size] for row, start in zip(audio, starts, strict=True)])
    frames = num_frames(size)
    first = [round(start / FRAME_SAMPLES) for start in starts]
    pieces = [line[at : at + frames] for line, at in zip(units, first, strict=True)]
    return cropped, torch.full_like(lens, size), pieces
