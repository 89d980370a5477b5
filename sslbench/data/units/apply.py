"""Unit labels on cuts: `cut.custom["kmeans"]`, one number per started 20 ms, space-separated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from lhotse.cut import Cut

from sslbench.data.loading import SkipLog, read_cut
from sslbench.data.manifests import describe, open_manifest, write_manifest
from sslbench.data.units.features import Features, num_frames, open_features
from sslbench.data.units.model import UnitModel
from sslbench.errors import AudioError, SslbenchError
from sslbench.io import read_json, sha256_file, write_json
from sslbench.progress import Progress

CHUNK_DURATION_S = 60.0
KEY = "kmeans"


def parse_units(cut: Cut) -> list[int]:
    """The labels of a cut. Raises `SslbenchError` when there are none or they do not fit its length."""
    text = (cut.custom or {}).get(KEY)
    if text is None:
        raise SslbenchError(f"{cut.id}: has no units; label the manifest with 'sslbench units apply'")
    labels = [int(word) for word in str(text).split()]
    if len(labels) != num_frames(cut.num_samples):
        raise SslbenchError(
            f"{cut.id}: has {len(labels)} units for {cut.num_samples} samples, {num_frames(cut.num_samples)} "
            "expected at 50 Hz; label the manifest again"
        )
    return labels


def label_manifest(
    units: Path | str,
    manifest: Path | str,
    out: Path | str,
    ckpt: Path | str | None = None,
    device: str = "cpu",
) -> dict[str, int]:
    """Write a manifest with labels, in the order of the given one.

    The output is whole or absent, byte-identical for equal input, and skipped when it is complete. Beside
    it lie `OUT.skipped.jsonl` (clips that could not be read) and `OUT.meta.json` (what it was made of).

    Args:
        units: folder of `sslbench units fit`.
        manifest: cuts to label.
        out: the labelled manifest, ending in `.jsonl.gz`.
        ckpt: the upstream's checkpoint, when the units are of one.
        device: where the upstream runs.

    Returns:
        `{"cuts": labelled, "skipped": left out, "frames": labels written}`.

    Raises:
        SslbenchError: another checkpoint than the units were fitted on, or too many unreadable clips.
    """
    out = Path(out)
    if not out.name.endswith(".jsonl.gz"):
        raise SslbenchError(f"{out}: a labelled manifest's name must end in .jsonl.gz")
    model = UnitModel.load(units)
    meta = {"units_sha256": model.facts["sha256"], "manifest_sha256": describe(manifest).sha256}
    meta_path = _beside(out, "meta.json")
    done = _finished(out, meta_path, meta)
    if done is not None:
        return done
    features = _same_features(model, ckpt, device)
    skips = SkipLog(_beside(out, "skipped.jsonl"))
    frames = 0

    def labelled() -> Iterator[Cut]:
        nonlocal frames
        for cut, labels in _labelled(manifest, model, features, skips):
            cut.custom = {**(cut.custom or {}), KEY: " ".join(map(str, labels))}
            frames += len(labels)
            yield cut
        skips.check()
        if frames == 0:
            raise SslbenchError(f"{manifest}: no cut could be labelled")

    cuts = write_manifest(labelled(), out)
    counts = {"cuts": cuts, "skipped": skips.count, "frames": frames}
    write_json(meta_path, {**meta, **counts, "sha256": sha256_file(out), "clusters": model.clusters})
    return counts


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(f"{out.name.removesuffix('.jsonl.gz')}.{suffix}")


def _finished(out: Path, meta_path: Path, meta: dict[str, str]) -> dict[str, int] | None:
    """The counts of an earlier run with the same input whose output is intact."""
    if not out.is_file() or not meta_path.is_file():
        return None
    stored = read_json(meta_path)
    if any(stored.get(key) != value for key, value in meta.items()) or stored.get("sha256") != sha256_file(
        out
    ):
        return None
    return {key: int(stored[key]) for key in ("cuts", "skipped", "frames")}


def _same_features(model: UnitModel, ckpt: Path | str | None, device: str) -> Features:
    features = open_features(model.facts["feature"], ckpt, device)
    fitted, given = model.facts.get("ckpt_sha256"), features.facts().get("ckpt_sha256")
    if fitted != given:
        raise SslbenchError(
            f"units were fitted on weights {str(fitted)[:12]}, --ckpt has {str(given)[:12]}; "
            "use the same checkpoint"
        )
    return features


def _labelled(
    manifest: Path | str, model: UnitModel, features: Features, skips: SkipLog
) -> Iterator[tuple[Cut, list[int]]]:
    total = describe(manifest).cuts
    with Progress("units: cuts labelled", total) as progress:
        for chunk in _chunks(open_manifest(manifest)):
            good: list[tuple[Cut, torch.Tensor]] = []
            skips.saw(len(chunk))
            for cut in chunk:
                try:
                    good.append((cut, _checked(cut)))
                except AudioError as error:
                    skips.add(cut.id, str(error))
            if good:
                for (cut, _), frames in zip(good, features.frames([wav for _, wav in good]), strict=True):
                    yield cut, model.assign(frames).tolist()
            progress.advance(len(chunk))


def _checked(cut: Cut) -> torch.Tensor:
    """The audio, when its label count is what the manifest's length promises."""
    wav = read_cut(cut)
    if num_frames(len(wav)) != num_frames(cut.num_samples):
        raise AudioError(f"{cut.id}: has {len(wav)} samples, the manifest says {cut.num_samples}")
    return wav


def _chunks(cuts: Iterator[Cut]) -> Iterator[list[Cut]]:
    """Consecutive cuts of about `CHUNK_DURATION_S` together: the manifest's order is kept."""
    chunk: list[Cut] = []
    seconds = 0.0
    for cut in cuts:
        chunk.append(cut)
        seconds += cut.duration
        if seconds >= CHUNK_DURATION_S:
            yield chunk
            chunk, seconds = [], 0.0
    if chunk:
        yield chunk
