"""Shar folders: the same cuts and samples as the manifest, readable by lhotse, exactly resumable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording

from sslbench.cli import main
from sslbench.data.loading import BatchLoader, SkipLog, read_cut
from sslbench.data.manifests import describe, open_manifest, write_manifest
from sslbench.data.shar import write_shar
from sslbench.errors import CorruptFileError, SslbenchError


def make_manifest(folder: Path, count: int = 45) -> Path:
    """Cuts of wav, flac and pieces of a longer recording, with units; ids with dots and slashes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    cuts: list[MonoCut] = []
    for i in range(count):
        path = folder / f"u{i:03d}.{'wav' if i % 2 else 'flac'}"
        soundfile.write(path, (rng.standard_normal(int(rng.integers(4_000, 32_000))) * 0.1), 16_000)
        cut = Recording.from_file(path, recording_id=path.stem).to_cut()
        if i % 5 == 0:
            cut = cut.truncate(offset=0.05, duration=0.2)
        cut = cut.with_id(f"spk.{i % 3}/u{i:03d}")
        cut.custom = {"kmeans": " ".join(str(n % 7) for n in range(-(-cut.num_samples // 320)))}
        cuts.append(cut)
    write_manifest(cuts, folder / "train.jsonl.gz")
    return folder / "train.jsonl.gz"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module")
def shar(manifest: Path) -> Path:
    out = manifest.parent / "shar" / "train"
    assert write_shar(manifest, out, shard_cuts=10, jobs=2)["cuts"] == 45
    return out


def test_the_same_cuts_samples_and_units(manifest: Path, shar: Path) -> None:
    plain = {cut.id: cut for cut in open_manifest(manifest)}
    sharded = {cut.id: cut for cut in open_manifest(shar)}
    assert plain.keys() == sharded.keys()
    assert list(plain) != list(sharded)  # shuffled over the corpus
    for name, cut in plain.items():
        assert torch.equal(read_cut(cut), read_cut(sharded[name]))
        assert sharded[name].custom == cut.custom
    assert describe(shar).cuts == 45
    assert describe(shar).data.hours == describe(manifest).data.hours


def test_lhotse_reads_the_folder(manifest: Path, shar: Path) -> None:
    plain = {cut.id: cut for cut in open_manifest(manifest)}
    cuts = list(CutSet.from_shar(in_dir=shar))
    assert len(cuts) == 45
    for cut in cuts:
        np.testing.assert_array_equal(cut.load_audio()[0], read_cut(plain[cut.id]).numpy())


def test_a_folder_that_lhotse_wrote_is_read(manifest: Path, tmp_path: Path) -> None:
    plain = {cut.id: cut for cut in open_manifest(manifest)}
    open_manifest(manifest).to_eager().to_shar(tmp_path, fields={"recording": "flac"}, shard_size=20)
    cuts = list(open_manifest(tmp_path))
    assert len(cuts) == 45
    assert all(torch.allclose(read_cut(cut), read_cut(plain[cut.id]), atol=1e-4) for cut in cuts)


def test_an_interrupted_write_goes_on_and_equals_an_uninterrupted_one(manifest: Path, tmp_path: Path) -> None:
    from sslbench.data import shar as module

    write_shar(manifest, tmp_path / "a", shard_cuts=10)
    real, calls = module._write_shard, []

    def killed(shard: module._Shard) -> dict[str, object]:
        calls.append(shard.number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(shard)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            write_shar(manifest, tmp_path / "b", shard_cuts=10)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "b").iterdir()}
    assert len(kept) == 4
    with pytest.raises(SslbenchError, match="another request"):
        write_shar(manifest, tmp_path / "b", shard_cuts=20)
    write_shar(manifest, tmp_path / "b", shard_cuts=10)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert all((tmp_path / "b" / name).stat().st_mtime_ns == when for name, when in kept.items())
    assert not list(tmp_path.glob(".*"))  # nothing is left behind


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_from_a_shar_folder_is_exact(shar: Path, workers: int) -> None:
    def loader(num_workers: int) -> BatchLoader:
        return BatchLoader(open_manifest(shar), 6.0, shuffle=True, seed=3, num_workers=num_workers)

    def ids(batches: list[object]) -> list[list[str]]:
        return [[cut.id for cut in batch.cuts] for batch in batches]  # type: ignore[attr-defined]

    whole = [batch for epoch in range(2) for batch in loader(0).epoch(epoch)]
    per_epoch = len(whole) // 2
    assert sorted(cut.id for batch in whole[:per_epoch] for cut in batch.cuts) == sorted(
        cut.id for cut in open_manifest(shar)
    )
    for stop in (1, per_epoch - 1, per_epoch, per_epoch + 2):
        first = loader(workers)
        stream = first.endless()
        before = [next(stream) for _ in range(stop)]
        second = loader(workers)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        stream = second.endless()
        after = [next(stream) for _ in range(len(whole) - stop)]
        assert ids(before + after) == ids(whole)
        assert all(torch.equal(a.audio, b.audio) for a, b in zip(before + after, whole, strict=True))


def test_the_order_of_shards_is_drawn_anew_for_each_epoch(shar: Path) -> None:
    import random

    rows = open_manifest(shar).data
    orders = {tuple(row.id for row in rows.rows(random.Random(f"0 {epoch}"))) for epoch in range(4)}  # type: ignore[union-attr]
    assert len(orders) > 1
    assert len({frozenset(order) for order in orders}) == 1


def test_unreadable_audio_is_skipped_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = make_manifest(tmp_path / "in", 20)
    (tmp_path / "in" / "u003.wav").write_bytes(b"RIFF")
    with pytest.raises(SslbenchError, match="1 of 20 cuts could not be used"):
        write_shar(manifest, tmp_path / "out", shard_cuts=8)
    assert (
        main(["data", "shar", str(manifest), "--out", str(tmp_path / "out2"), "--skip_limit_share", "0.1"])
        == 0
    )
    assert "19 cuts" in capsys.readouterr().out
    (row,) = (json.loads(line) for line in (tmp_path / "out2.skipped.jsonl").read_text().splitlines())
    assert row["id"] == "spk.0/u003"


def test_a_damaged_shard_costs_its_cuts_only(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "train"
    write_shar(manifest, out, shard_cuts=15)
    (out / "recording.000001.tar").write_bytes(b"no tar")
    log = SkipLog(limit_share=0.5)
    got = [
        cut.id for batch in BatchLoader(open_manifest(out), 6.0, skip_log=log).epoch(0) for cut in batch.cuts
    ]
    assert (len(got), log.count) == (30, 15)
    assert all("recording.000001.tar" in reason for reason in log.reasons.values())
    (out / "recording.000001.tar").unlink()
    with pytest.raises(SslbenchError, match=r"shard cuts\.000001\.jsonl\.gz lacks its audio"):
        open_manifest(out)


def test_audio_of_another_shard_is_refused(manifest: Path, tmp_path: Path) -> None:
    write_shar(manifest, tmp_path / "s", shard_cuts=15)
    (tmp_path / "s" / "recording.000000.tar").replace(tmp_path / "s" / "recording.000001.tar")
    (tmp_path / "s" / "recording.000000.tar").write_bytes(
        (tmp_path / "s" / "recording.000002.tar").read_bytes()
    )
    with pytest.raises(CorruptFileError, match=r"where cut .* should be"):
        list(open_manifest(tmp_path / "s"))
