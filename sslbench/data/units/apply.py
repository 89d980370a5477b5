"""Unit labels on cuts: `cut.custom["kmeans"]`, one number per started 20 ms, space-separated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import Cut

from sslbench.data.manifests import describe, manifest_files, write_manifest
from sslbench.data.parallel import ordered
from sslbench.data.reading import read_cut
from sslbench.data.rows import ManifestRows
from sslbench.data.skips import SkipLog
from sslbench.data.units.features import Features, num_frames, open_features
from sslbench.data.units.model import UnitModel
from sslbench.errors import AudioError, CorruptFileError, SslbenchError
from sslbench.io import read_json, read_jsonl, sha256_file, write_json, write_jsonl
from sslbench.progress import Progress

CHUNK_DURATION_S = 60.0
KEY = "kmeans"
SKIP_LIMIT_SHARE = 0.01
COUNTS = ("cuts", "skipped", "frames")


def parse_units(cut: Cut) -> list[int]:
    """The labels of a cut. Raises `SslbenchError` when there are none or they do not fit its length."""
    text = (cut.custom or {}).get(KEY)
    if text is None:
        raise SslbenchError(f"{cut.id}: has no units; label the manifest with 'sslbench units apply'")
    try:
        labels = [int(word) for word in str(text).split()]
    except ValueError:
        raise SslbenchError(f"{cut.id}: its units are not whole numbers; label the manifest again") from None
    if len(labels) != num_frames(cut.num_samples):
        raise SslbenchError(
            f"{cut.id}: has {len(labels)} units for {cut.num_samples} samples, {num_frames(cut.num_samples)} "
            "expected at 50 Hz; label the manifest again"
        )
    return labels


@dataclass(frozen=True)
class LabelJob:
    """A manifest, or one of several parts of it, to label."""

    units: Path
    """Folder of `sslbench units fit`."""
    manifest: Path
    out: Path
    """The whole labelled manifest, ending in `.jsonl.gz`; a part lies beside it."""
    ckpt: Path | None = None
    device: str = "cpu"
    shard: int = 0
    """This part, from 0."""
    num_shards: int = 1
    manifest_sha256: str = ""
    """Of the manifest, where it is known already."""

    @property
    def target(self) -> Path:
        """Where this part goes."""
        return self.out if self.num_shards == 1 else shard_path(self.out, self.shard, self.num_shards)


def shard_path(out: Path, shard: int, num_shards: int) -> Path:
    """The file of one part: `NAME.0003-of-0016.jsonl.gz`."""
    return beside(out, f"{shard:04d}-of-{num_shards:04d}.jsonl.gz")


def label_manifest(
    units: Path | str,
    manifest: Path | str,
    out: Path | str,
    ckpt: Path | str | None = None,
    device: str = "cpu",
    *,
    shard: int = 0,
    num_shards: int = 1,
    jobs: int = 1,
) -> dict[str, int]:
    """Write a manifest with labels, in the order of the given one.

    The output is whole or absent, byte-identical for equal input, and skipped when it is complete. Beside
    it lie `OUT.skipped.jsonl` (clips that could not be read) and `OUT.meta.json` (what it was made of).

    Args:
        units: folder of `sslbench units fit`.
        manifest: cuts to label, or a Shar folder.
        out: the labelled manifest, ending in `.jsonl.gz`.
        ckpt: the upstream's checkpoint, when the units are of one.
        device: where the upstream runs.
        shard: which part to label, when several tasks share the work; `merge_shards` joins the parts.
        num_shards: the number of parts.
        jobs: processes that share the work here; the output does not depend on it.

    Returns:
        `{"cuts": labelled, "skipped": left out, "frames": labels written}`.

    Raises:
        SslbenchError: another checkpoint than the units were fitted on, or too many unreadable clips.
    """
    if num_shards < 1 or jobs < 1:
        raise SslbenchError("units apply: --num_shards and --jobs must be at least 1")
    if not 0 <= shard < num_shards:
        raise SslbenchError(f"--shard {shard}: must lie between 0 and {num_shards - 1}")
    if not Path(out).name.endswith(".jsonl.gz"):
        raise SslbenchError(f"{out}: a labelled manifest's name must end in .jsonl.gz")
    here = Path(ckpt) if ckpt is not None else None
    job = LabelJob(Path(units), Path(manifest), Path(out), here, device, shard, num_shards)
    if jobs <= 1 or num_shards > 1:
        return label_part(job)
    about = _request(job, UnitModel.load(job.units))
    done = _finished(job.out, beside(job.out, "meta.json"), about)
    if done is not None:
        return done
    job = replace(job, manifest_sha256=about["manifest_sha256"])
    parts = [replace(job, shard=number, num_shards=jobs) for number in range(jobs)]
    for _ in ordered(label_part, parts, jobs):
        pass
    return merge_shards(job.out, jobs)


def label_part(job: LabelJob) -> dict[str, int]:
    """Label one part. See `label_manifest`."""
    model = UnitModel.load(job.units)
    meta, out = _request(job, model), job.target
    done = _finished(out, beside(out, "meta.json"), meta)
    if done is not None:
        return done
    features = _same_features(model, job.ckpt, job.device)
    # a few bad clips may be many for a part: the share is judged over all parts, when they are joined
    skips = SkipLog(beside(out, "skipped.jsonl"), SKIP_LIMIT_SHARE if job.num_shards == 1 else 1.0)
    frames = 0

    def labelled() -> Iterator[Cut]:
        nonlocal frames
        for cut, labels in _labelled(job, model, features, skips):
            cut.custom = {**(cut.custom or {}), KEY: " ".join(map(str, labels))}
            frames += len(labels)
            yield cut
        skips.check()
        if frames == 0 and job.num_shards == 1:
            raise SslbenchError(f"{job.manifest}: no cut could be labelled")

    cuts = write_manifest(labelled(), out)
    counts = {"cuts": cuts, "skipped": skips.count, "frames": frames}
    write_json(
        beside(out, "meta.json"), {**meta, **counts, "sha256": sha256_file(out), "clusters": model.clusters}
    )
    return counts


def merge_shards(out: Path | str, num_shards: int) -> dict[str, int]:
    """Join the parts of a labelled manifest, check that none is missing or of other units, drop them.

    The joined file equals, byte for byte, the one that a single process would have written.

    Returns:
        The counts of `label_manifest`.

    Raises:
        SslbenchError: missing parts (all are named), or parts of different requests.
        CorruptFileError: a part that changed after it was written.
    """
    if num_shards < 1:
        raise SslbenchError(f"units merge: --num_shards must be at least 1, not {num_shards}")
    out = Path(out)
    parts = [shard_path(out, number, num_shards) for number in range(num_shards)]
    metas = [beside(part, "meta.json") for part in parts]
    missing = [number for number, meta in enumerate(metas) if not meta.is_file()]
    if missing and len(missing) == num_shards and beside(out, "meta.json").is_file():
        stored = read_json(beside(out, "meta.json"))  # merged before
        return {key: int(stored[key]) for key in COUNTS}
    if missing:
        raise SslbenchError(
            f"{out}: {len(missing)} of {num_shards} parts are not finished: "
            f"{', '.join(map(str, missing[:20]))}; run 'units apply' with these --shard numbers"
        )
    facts = [read_json(meta) for meta in metas]
    for part, own in zip(parts, facts, strict=True):
        if any(own[key] != facts[0][key] for key in ("units_sha256", "manifest_sha256")):
            raise SslbenchError(f"{part}: was made with other units or of another manifest than part 0")
        if not part.is_file() or sha256_file(part) != own["sha256"]:
            raise CorruptFileError(f"{part}: does not match its meta.json; label this part again")
    counts = {key: sum(int(own[key]) for own in facts) for key in COUNTS}
    tried = counts["cuts"] + counts["skipped"]
    if counts["skipped"] > SKIP_LIMIT_SHARE * tried:
        raise SslbenchError(
            f"{out}: {counts['skipped']} of {tried} clips could not be read, more than "
            f"{SKIP_LIMIT_SHARE:.0%}; they are named in {beside(parts[0], 'skipped.jsonl').name} and so on"
        )
    write_manifest((cut for part in parts for cut in ManifestRows([part])), out)
    skipped = [row for part in parts for row in _skipped_rows(part)]
    if skipped:
        write_jsonl(beside(out, "skipped.jsonl"), skipped)
    shared = {key: facts[0][key] for key in ("units_sha256", "manifest_sha256", "clusters")}
    write_json(beside(out, "meta.json"), {**shared, **counts, "sha256": sha256_file(out)})
    for part, meta in zip(parts, metas, strict=True):
        meta.unlink()  # first: a part without it counts as unfinished
        part.unlink()
        beside(part, "skipped.jsonl").unlink(missing_ok=True)
    return counts


def _skipped_rows(part: Path) -> list[dict[str, Any]]:
    path = beside(part, "skipped.jsonl")
    return list(read_jsonl(path)) if path.is_file() else []


def _request(job: LabelJob, units: UnitModel) -> dict[str, str]:
    """What an output is made of."""
    return {
        "units_sha256": units.facts["sha256"],
        "manifest_sha256": job.manifest_sha256 or describe(job.manifest).sha256,
    }


def beside(out: Path, suffix: str) -> Path:
    """The path of something that belongs to a manifest: `NAME.suffix`."""
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
    return {key: int(stored[key]) for key in COUNTS}


def _same_features(model: UnitModel, ckpt: Path | str | None, device: str) -> Features:
    # random weights were asked for when the units were fitted, or differ from those now
    features = open_features(model.facts["feature"], ckpt, device, random_too=True)
    fitted, given = model.facts.get("ckpt_sha256"), features.facts().get("ckpt_sha256")
    if fitted != given:
        was, here = (f"weights {sha[:12]}" if sha else "random weights" for sha in (fitted, given))
        raise SslbenchError(f"units were fitted on {was}, here are {here}; use the same checkpoint")
    return features


def _labelled(
    job: LabelJob, model: UnitModel, features: Features, skips: SkipLog
) -> Iterator[tuple[Cut, list[int]]]:
    rows = ManifestRows(manifest_files(job.manifest))
    total = len(rows)
    first, end = (total * number // job.num_shards for number in (job.shard, job.shard + 1))
    with Progress("units: cuts labelled", end - first) as progress:
        for chunk in _chunks(row.cut() for row in islice(rows.rows(), first, end)):
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
