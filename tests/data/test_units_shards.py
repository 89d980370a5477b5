"""Labels made in parts equal those made at once; labels of fairseq's files land on the right frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, Recording

from sslbench.cli import main
from sslbench.data.manifests import open_manifest, write_manifest
from sslbench.data.shar import write_shar
from sslbench.data.units import (
    FitSettings,
    fit_units,
    import_labels,
    label_manifest,
    merge_shards,
    open_features,
)
from sslbench.data.units.apply import shard_path
from sslbench.errors import CorruptFileError, SslbenchError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 readable clips in folders, as `train.jsonl.gz`, with 5 units of MFCC."""
    root = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    cuts = []
    for i in range(17):
        path = root / "wav" / f"spk{i % 3}" / f"u{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.standard_normal(int(rng.integers(9_000, 33_000))) * 0.1, 16_000)
        cuts.append(Recording.from_file(path, recording_id=path.stem).to_cut().with_id(path.stem))
    write_manifest(cuts, root / "train.jsonl.gz")
    fit_units(root / "train.jsonl.gz", open_features("mfcc"), root / "units", FitSettings(clusters=5))
    return root


def test_parts_merged_equal_the_whole(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units, manifest = corpus / "units", corpus / "train.jsonl.gz"
    counts = label_manifest(units, manifest, tmp_path / "whole.jsonl.gz")
    assert counts == label_manifest(units, manifest, tmp_path / "jobs.jsonl.gz", jobs=2)
    out = tmp_path / "parts.jsonl.gz"
    for shard in (2, 0):
        label_manifest(units, manifest, out, shard=shard, num_shards=4)
    with pytest.raises(SslbenchError, match=r"2 of 4 parts are not finished: 1, 3; run 'units apply'"):
        merge_shards(out, 4)
    kept = shard_path(out, 2, 4).stat().st_mtime_ns
    for shard in range(4):
        words = ["--units", str(units), "--manifest", str(manifest), "--out", str(out)]
        assert main(["units", "apply", *words, "--num_shards", "4", "--shard", str(shard)]) == 0
    assert shard_path(out, 2, 4).stat().st_mtime_ns == kept  # a finished part is not made again
    assert main(["units", "merge", "--out", str(out), "--num_shards", "4"]) == 0
    assert "17 cuts" in capsys.readouterr().out
    whole = (tmp_path / "whole.jsonl.gz").read_bytes()
    assert out.read_bytes() == whole
    assert (tmp_path / "jobs.jsonl.gz").read_bytes() == whole
    names = {path.name for path in tmp_path.iterdir() if path.name.startswith(("parts", "jobs"))}
    assert names == {"parts.jsonl.gz", "parts.meta.json", "jobs.jsonl.gz", "jobs.meta.json"}
    assert merge_shards(out, 4) == counts  # merging again finds it done


def test_parts_of_other_units_and_changed_parts_are_refused(corpus: Path, tmp_path: Path) -> None:
    manifest, out = corpus / "train.jsonl.gz", tmp_path / "out.jsonl.gz"
    fit_units(manifest, open_features("mfcc"), tmp_path / "other", FitSettings(clusters=6))
    label_manifest(corpus / "units", manifest, out, shard=0, num_shards=2)
    label_manifest(tmp_path / "other", manifest, out, shard=1, num_shards=2)
    with pytest.raises(SslbenchError, match="was made with other units"):
        merge_shards(out, 2)
    label_manifest(corpus / "units", manifest, out, shard=1, num_shards=2)
    shard_path(out, 1, 2).write_bytes(b"torn")
    with pytest.raises(CorruptFileError, match=r"0001-of-0002\.jsonl\.gz: does not match"):
        merge_shards(out, 2)
    with pytest.raises(SslbenchError, match=r"--shard 2: must lie between 0 and 1"):
        label_manifest(corpus / "units", manifest, out, shard=2, num_shards=2)


def test_a_bad_clip_counts_over_all_parts(corpus: Path, tmp_path: Path) -> None:
    cuts = list(open_manifest(corpus / "train.jsonl.gz"))
    cuts[3].recording.sources[0].source = str(tmp_path / "gone.wav")
    write_manifest(cuts, tmp_path / "train.jsonl.gz")
    out = tmp_path / "out.jsonl.gz"
    for shard in range(2):
        label_manifest(corpus / "units", tmp_path / "train.jsonl.gz", out, shard=shard, num_shards=2)
    with pytest.raises(SslbenchError, match=r"1 of 17 clips could not be read, more than 1%"):
        merge_shards(out, 2)


def test_a_shar_folder_can_be_labelled(corpus: Path, tmp_path: Path) -> None:
    write_shar(corpus / "train.jsonl.gz", tmp_path / "shar", shard_cuts=5)
    label_manifest(corpus / "units", tmp_path / "shar", tmp_path / "a.jsonl.gz")
    label_manifest(corpus / "units", corpus / "train.jsonl.gz", tmp_path / "b.jsonl.gz")
    one, other = ({c.id: c.kmeans for c in open_manifest(tmp_path / f"{n}.jsonl.gz")} for n in "ab")
    assert one == other


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_memory_of_kmeans_does_not_grow_with_the_frames() -> None:
    program = """
import torch
torch.set_num_threads(1)  # each further thread brings an arena of its own
from sslbench.data.units.fit import FitSettings, _cluster
def peak_mib():  # not ru_maxrss, which a child inherits from a large parent
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
def clips(count):
    made = torch.Generator().manual_seed(0)
    return (torch.randn(500, 64, generator=made) for _ in range(count))
settings = FitSettings(clusters=20, pool_frames=20_000, batch_frames=5_000, starts=1, max_passes=2)
peaks = []
for count in (1_000, 3_000):  # 128 MB, 384 MB of features; before, pools and allocator fill up
    assert _cluster(clips(count), settings, "none").facts["frames"] == 500 * count
    peaks.append(peak_mib())
held = list(clips(2_000))  # control: holding the features is seen
peaks.append(peak_mib())
print(*peaks)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    few, many, held = map(float, done.stdout.split())
    assert many - few < 30
    assert held - many > 150


# --- fairseq's label files


def write_km(
    corpus: Path, folder: Path, labels: dict[str, list[int]], samples: dict[str, int] | None = None
) -> None:
    """A `.tsv` and `.km` of every clip, in an order of their own."""
    cuts = sorted(open_manifest(corpus / "train.jsonl.gz"), key=lambda cut: cut.id[::-1])
    rows = [str(corpus / "wav")]
    for cut in cuts:
        path = Path(cut.recording.sources[0].source).relative_to(corpus / "wav")
        rows.append(f"{path}\t{(samples or {}).get(cut.id, cut.num_samples)}")
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    (folder / "train.km").write_text("".join(" ".join(map(str, labels[c.id])) + "\n" for c in cuts))


def fairseq_labels(cuts: CutSet, rate: int = 50) -> dict[str, list[int]]:
    """As HuBERT's own feature extractor would give: floor((T - 400) / hop) + 1 labels, numbered by frame."""
    hop = 16_000 // rate
    return {cut.id: [n % 500 for n in range((cut.num_samples - 400) // hop + 1)] for cut in cuts}


def run_import(folder: Path, manifest: Path, **rest: float) -> dict[str, int]:
    return import_labels(manifest, folder / "train.km", folder / "train.tsv", folder / "out.jsonl.gz", **rest)


@pytest.mark.parametrize(("rate", "step"), [(50, 1), (100, 2)])
def test_labels_land_on_their_frames(corpus: Path, tmp_path: Path, rate: int, step: int) -> None:
    labels = fairseq_labels(open_manifest(corpus / "train.jsonl.gz"), rate)
    write_km(corpus, tmp_path, labels)
    counts = run_import(tmp_path, corpus / "train.jsonl.gz", rate_hz=rate)
    assert counts["cuts"] == 17
    for cut in open_manifest(tmp_path / "out.jsonl.gz"):
        got = [int(word) for word in cut.kmeans.split()]
        assert len(got) == -(-cut.num_samples // 320)
        own = labels[cut.id][::step]
        assert got[: len(own)] == own
        assert set(got[len(own) :]) <= {own[-1]}


def test_a_piece_of_a_recording_gets_its_part(corpus: Path, tmp_path: Path) -> None:
    whole = list(open_manifest(corpus / "train.jsonl.gz"))
    write_km(corpus, tmp_path, fairseq_labels(whole))
    pieces: list[MonoCut] = [cut.truncate(offset=0.104, duration=0.3).with_id(f"p{cut.id}") for cut in whole]
    write_manifest(pieces, tmp_path / "pieces.jsonl.gz")
    run_import(tmp_path, tmp_path / "pieces.jsonl.gz")
    for cut in open_manifest(tmp_path / "out.jsonl.gz"):
        assert cut.kmeans.split() == [str(n) for n in range(5, 20)]  # 0.104 s is nearest to frame 5


def test_a_file_in_a_folder_is_not_taken_for_its_namesake_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number, name in enumerate(("a/b.wav", "b.wav")):
        soundfile.write(tmp_path / name, np.ones(16_000 + 3200 * number) * 0.1, 16_000)
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\na/b.wav\t16000\nb.wav\t19200\n")
    (tmp_path / "train.km").write_text("1 " * 49 + "\n" + "2 " * 59 + "\n")
    cuts = [Recording.from_file(tmp_path / name).to_cut().with_id(name) for name in ("a/b.wav", "b.wav")]
    write_manifest(cuts, tmp_path / "train.jsonl.gz")
    run_import(tmp_path, tmp_path / "train.jsonl.gz")
    assert [cut.kmeans.split()[0] for cut in open_manifest(tmp_path / "out.jsonl.gz")] == ["1", "2"]


def test_what_does_not_fit_is_refused_with_its_lines(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = corpus / "train.jsonl.gz"
    labels = fairseq_labels(open_manifest(manifest))
    write_km(corpus, tmp_path, {**labels, "u10": labels["u10"][:-9], "u01": labels["u01"] * 2})
    words = ["--manifest", str(manifest), "--labels", str(tmp_path / "train.km")]
    words += ["--tsv", str(tmp_path / "train.tsv"), "--out", str(tmp_path / "out.jsonl.gz")]
    assert main(["units", "import", *words]) == 2
    message = capsys.readouterr().err
    # reversed names sort u00, u10, u01, …
    assert "train.km:2: " in message
    assert "train.km:3: " in message
    assert not (tmp_path / "out.jsonl.gz").exists()
    with pytest.raises(
        SslbenchError, match=r"train\.km:2: 3\d labels at 50 Hz|train\.km:2: \d+ labels at 50 Hz"
    ):
        run_import(tmp_path, manifest)

    write_km(corpus, tmp_path, labels, samples={"u00": 123_456})
    with pytest.raises(SslbenchError, match=r"train\.tsv:2: 123456 samples, but cut u00"):
        run_import(tmp_path, manifest)

    write_km(corpus, tmp_path, {**labels, "u00": [-1, *labels["u00"][1:]]})
    with pytest.raises(SslbenchError, match=r"train\.km:1: labels must be whole numbers"):
        run_import(tmp_path, manifest)

    write_km(corpus, tmp_path, labels)
    (tmp_path / "train.km").write_text("1 2 3\n")
    with pytest.raises(SslbenchError, match=r"has 1 lines, but .* lists 17 recordings"):
        run_import(tmp_path, manifest)


def test_unlisted_recordings_are_named_and_limited(corpus: Path, tmp_path: Path) -> None:
    write_km(corpus, tmp_path, fairseq_labels(open_manifest(corpus / "train.jsonl.gz")))
    for name in ("train.tsv", "train.km"):
        lines = (tmp_path / name).read_text().splitlines()
        (tmp_path / name).write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(SslbenchError, match="1 of 17 cuts"):
        run_import(tmp_path, corpus / "train.jsonl.gz")
    assert run_import(tmp_path, corpus / "train.jsonl.gz", limit_share=0.1)["skipped"] == 1
    assert "does not name its recording" in (tmp_path / "out.skipped.jsonl").read_text()


def test_the_second_iteration_takes_a_layer_of_the_first_model(corpus: Path, tmp_path: Path) -> None:
    manifest = corpus / "train.jsonl.gz"
    with pytest.raises(SslbenchError, match=r"random weights; give --ckpt, or say --random_weights"):
        open_features("hubert_k2ssl_tiny:1")
    with pytest.warns(UserWarning, match="weights are RANDOM"):
        features = open_features("hubert_k2ssl_tiny:1", random_too=True)
    fit_units(manifest, features, tmp_path / "units2", FitSettings(clusters=4))
    with pytest.warns(UserWarning, match="weights are RANDOM"):
        label_manifest(tmp_path / "units2", manifest, tmp_path / "out.jsonl.gz")
    for cut in open_manifest(tmp_path / "out.jsonl.gz"):
        assert len(cut.kmeans.split()) == -(-cut.num_samples // 320)
