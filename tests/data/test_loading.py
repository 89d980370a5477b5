"""Batches: complete, ordered by (seed, epoch), resumable, and unbothered by bad files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording

from sslbench.data.loading import AudioBatch, BatchLoader, SkipLog, read_cut
from sslbench.errors import AudioError, SslbenchError
from sslbench.io import read_jsonl


def make_cuts(folder: Path, count: int, seed: int = 0) -> CutSet:
    rng = np.random.default_rng(seed)
    cuts = []
    for i in range(count):
        path = folder / f"utt{i:03d}.wav"
        samples = rng.standard_normal(int(rng.integers(4_000, 32_000))) * 0.1
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
        cuts.append(Recording.from_file(path, recording_id=path.stem).to_cut().with_id(path.stem))
    manifest = folder / "cuts.jsonl.gz"
    CutSet.from_cuts(cuts).to_file(manifest)
    return CutSet.from_jsonl_lazy(manifest)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> CutSet:
    return make_cuts(tmp_path_factory.mktemp("audio"), 60)


def ids(batches: list[AudioBatch]) -> list[list[str]]:
    return [[cut.id for cut in batch.cuts] for batch in batches]


def flat(batches: list[AudioBatch]) -> list[str]:
    return [cut.id for batch in batches for cut in batch.cuts]


def test_an_epoch_holds_every_cut_once_padded_with_zeros(cuts: CutSet) -> None:
    batches = list(BatchLoader(cuts, max_duration_s=6.0).epoch(0))
    assert sorted(flat(batches)) == sorted(cut.id for cut in cuts)
    for batch in batches:
        assert batch.audio.numel() <= 6.0 * 16_000 * 1.0001
        for row, length, cut in zip(batch.audio, batch.audio_lens, batch.cuts, strict=True):
            assert torch.equal(row[:length], read_cut(cut))
            assert not row[length:].any()


def test_order_depends_on_seed_and_epoch_only(cuts: CutSet) -> None:
    def order(seed: int, epoch: int) -> list[list[str]]:
        return ids(list(BatchLoader(cuts, 6.0, shuffle=True, seed=seed).epoch(epoch)))

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_continues_with_the_next_batch(cuts: CutSet, workers: int) -> None:
    whole = list(BatchLoader(cuts, 6.0, shuffle=True).epoch(3))
    for stop in (1, 4, len(whole)):
        first = BatchLoader(cuts, 6.0, shuffle=True, num_workers=workers)
        stream = first.epoch(3)
        before = [next(stream) for _ in range(stop)]
        state = json.loads(json.dumps(first.state_dict()))
        second = BatchLoader(cuts, 6.0, shuffle=True, num_workers=workers)
        second.load_state_dict(state)
        assert ids(before) + ids(list(second.epoch(3))) == ids(whole)


@pytest.mark.parametrize("workers", [0, 1])
def test_endless_is_epoch_after_epoch_and_resumes(cuts: CutSet, workers: int) -> None:
    apart = [batch for epoch in range(3) for batch in BatchLoader(cuts, 6.0, shuffle=True).epoch(epoch)]
    loader = BatchLoader(cuts, 6.0, shuffle=True, num_workers=workers)
    stream = loader.endless()
    per_epoch = len(apart) // 3
    before = [next(stream) for _ in range(per_epoch)]  # stops at the very end of an epoch
    again = BatchLoader(cuts, 6.0, shuffle=True, num_workers=workers)
    again.load_state_dict(loader.state_dict())
    stream = again.endless()
    after = [next(stream) for _ in range(len(apart) - per_epoch)]
    assert ids(before + after) == ids(apart)
    assert [batch.epoch for batch in before + after] == [batch.epoch for batch in apart]
    assert again.state_dict()["epoch"] == 2


def test_an_abandoned_reader_does_not_keep_the_program_from_ending(tmp_path: Path) -> None:
    make_cuts(tmp_path, 20)
    program = f"""
from lhotse import CutSet
from sslbench.data.loading import BatchLoader
cuts = CutSet.from_jsonl_lazy({str(tmp_path / "cuts.jsonl.gz")!r})
stream = BatchLoader(cuts, 2.0, num_workers=1).endless()
print(len(next(stream)) > 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_an_abandoned_epoch_starts_again_without_a_restore(cuts: CutSet) -> None:
    loader = BatchLoader(cuts, 6.0)
    next(loader.epoch(0))
    assert sorted(flat(list(loader.epoch(0)))) == sorted(cut.id for cut in cuts)


def test_workers_do_not_touch_the_random_numbers_and_give_the_same_batches(cuts: CutSet) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    parallel = list(BatchLoader(cuts, 6.0, shuffle=True, num_workers=2).epoch(1))
    assert torch.equal(torch.get_rng_state(), before)
    serial = list(BatchLoader(cuts, 6.0, shuffle=True).epoch(1))
    assert all(torch.equal(a.audio, b.audio) for a, b in zip(parallel, serial, strict=True))


def test_ranks_share_an_epoch_without_repeats_and_in_lockstep(cuts: CutSet) -> None:
    loaders = [BatchLoader(cuts, 6.0, shuffle=True, rank=r, world_size=3, keep_empty=True) for r in range(3)]
    shards = [list(loader.epoch(0)) for loader in loaders]
    assert len({len(shard) for shard in shards}) == 1
    assert sorted(cut_id for shard in shards for cut_id in flat(shard)) == sorted(cut.id for cut in cuts)


def test_state_of_another_world_size_is_refused(cuts: CutSet) -> None:
    state = BatchLoader(cuts, 6.0, world_size=2).state_dict()
    with pytest.raises(SslbenchError, match="world_size=2, now 1"):
        BatchLoader(cuts, 6.0).load_state_dict(state)


def test_length_filter_and_its_error(cuts: CutSet) -> None:
    kept = flat(list(BatchLoader(cuts, 6.0, min_duration_s=0.5, max_cut_duration_s=1.5).epoch(0)))
    assert sorted(kept) == sorted(cut.id for cut in cuts if 0.5 <= cut.duration <= 1.5)
    assert 0 < len(kept) < 60
    with pytest.raises(SslbenchError, match="no cut within the length filter"):
        list(BatchLoader(cuts, 6.0, min_duration_s=100.0).epoch(0))


def damage(path: Path, how: str) -> None:
    samples, _ = soundfile.read(path, dtype="float32")
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("this is no audio")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:3000])
    elif how == "nan":
        samples[100] = np.nan
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
    elif how == "rate":
        soundfile.write(path, samples, 8_000, subtype="FLOAT")


DAMAGES = ("missing", "empty", "text", "truncated", "nan", "rate")


def test_bad_files_are_skipped_and_named(tmp_path: Path) -> None:
    cuts = make_cuts(tmp_path, 20)
    for i, how in enumerate(DAMAGES):
        damage(tmp_path / f"utt{i:03d}.wav", how)
    bad = [f"utt{i:03d}" for i in range(len(DAMAGES))]
    log = SkipLog(tmp_path / "skipped.jsonl", limit_share=0.5)
    for epoch in range(2):
        got = flat(list(BatchLoader(cuts, 6.0, skip_log=log).epoch(epoch)))
        assert sorted(got + bad) == sorted(cut.id for cut in cuts)
    assert log.count == len(DAMAGES)
    rows = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == bad
    assert all(row["id"] in row["reason"] for row in rows)


@pytest.mark.parametrize("how", DAMAGES)
def test_each_damage_is_an_audio_error(tmp_path: Path, how: str) -> None:
    cut = next(iter(make_cuts(tmp_path, 1)))
    assert len(read_cut(cut)) == cut.num_samples
    damage(tmp_path / "utt000.wav", how)
    with pytest.raises(AudioError, match="utt000"):
        read_cut(cut)


def test_a_piece_of_a_file_and_a_lhotse_transform_are_read_right(tmp_path: Path) -> None:
    cut = next(iter(make_cuts(tmp_path, 1)))
    assert isinstance(cut, MonoCut)
    whole = read_cut(cut)
    assert torch.equal(read_cut(cut.truncate(offset=0.1, duration=0.1)), whole[1600:3200])
    assert torch.allclose(read_cut(cut.perturb_volume(2.0)), whole * 2.0)


def test_too_many_bad_files_end_the_run(tmp_path: Path) -> None:
    log = SkipLog(limit_share=0.01)
    log.saw(100)
    log.add("a", "broken")
    with pytest.raises(SslbenchError, match=r"2 of 100 cuts .* limit of 1\.0%"):
        log.add("b", "broken")
    cuts = make_cuts(tmp_path, 10)
    damage(tmp_path / "utt003.wav", "missing")
    with pytest.raises(SslbenchError, match="1 of 10 cuts"):
        list(BatchLoader(cuts, 6.0).epoch(0))


def test_an_unreadable_batch_is_kept_only_on_request(tmp_path: Path) -> None:
    cuts = make_cuts(tmp_path, 2)
    damage(tmp_path / "utt000.wav", "empty")
    for keep, expected in ((False, [1]), (True, [0, 1])):
        log = SkipLog(limit_share=1.0)
        loader = BatchLoader(cuts, 0.1, skip_log=log, keep_empty=keep)
        assert sorted(len(batch) for batch in loader.epoch(0)) == expected


def test_a_skip_log_torn_by_a_kill_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "skipped.jsonl"
    path.write_text('{"id": "a", "reason": "x"}\n{"id": "b", "rea')
    for _ in range(2):
        log = SkipLog(path, limit_share=1.0)
        log.add("a", "x")
        log.add("b", "y")
    assert [row["id"] for row in read_jsonl(path)] == ["a", "b"]
