"""Manifests: errors that help, checksums that mean content, files that are whole or absent."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem

from sslbench.data import manifests
from sslbench.errors import CorruptFileError, SslbenchError


def cut(number: int, folder: str = "/a", text: str = "YES", samples: int = 16_000) -> MonoCut:
    name = f"u{number}"
    seconds = samples / 16_000
    source = AudioSource("file", [0], f"{folder}/{name}.flac")
    recording = Recording(name, [source], 16_000, samples, seconds)
    phones = [AlignmentItem("Y", 0.0, 0.1), AlignmentItem("EH", 0.1, 0.2)]
    supervision = SupervisionSegment(
        name, name, 0.0, seconds, text=text, speaker="s", gender="F", alignment={"phone": phones},
        custom={"kind": "word", "session": 1},
    )  # fmt: skip
    return MonoCut(name, 0.0, seconds, 0, [supervision], recording=recording)


def write(folder: Path, cuts: list[MonoCut], **rest: object) -> Path:
    manifests.write_corpus(folder, "toy", {"train": cuts}, synthetic=True, **rest)  # type: ignore[arg-type]
    return folder / "train.jsonl.gz"


def test_what_is_written_is_read_back_with_labels_and_phone_times(tmp_path: Path) -> None:
    path = write(tmp_path, [cut(0), cut(1)])
    first = next(iter(manifests.open_manifest(path)))
    supervision = first.supervisions[0]
    assert (supervision.text, supervision.speaker, supervision.gender) == ("YES", "s", "F")
    assert supervision.custom == {"kind": "word", "session": 1}
    assert supervision.alignment["phone"][1] == AlignmentItem("EH", 0.1, 0.2)
    about = manifests.describe(path)
    assert (about.cuts, about.data.corpus, about.data.split, about.data.synthetic) == (
        2,
        "toy",
        "train",
        True,
    )
    assert about.data.hours == pytest.approx(2 / 3600, abs=1e-6)
    entry = manifests.read_corpus(tmp_path)["splits"]["train"]
    assert entry == {"cuts": 2, "hours": about.data.hours, "sha256": about.sha256}


def test_the_checksum_ignores_place_and_order_and_sees_content(tmp_path: Path) -> None:
    original = manifests.describe(write(tmp_path / "a", [cut(0), cut(1)])).sha256
    elsewhere = [cut(1, folder="/b"), cut(0, folder="/b")]
    assert manifests.describe(write(tmp_path / "b", elsewhere)).sha256 == original
    assert manifests.describe(write(tmp_path / "c", [cut(0), cut(1, text="NO")])).sha256 != original
    assert manifests.describe(write(tmp_path / "d", [cut(0), cut(1, samples=8000)])).sha256 != original
    assert manifests.describe(write(tmp_path / "e", [cut(0)])).sha256 != original


def test_equal_cuts_give_equal_files(tmp_path: Path) -> None:
    assert write(tmp_path / "a", [cut(0)]).read_bytes() == write(tmp_path / "b", [cut(0)]).read_bytes()


def test_a_derived_manifest_still_knows_that_it_is_synthetic(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus", [cut(0)])
    derived = tmp_path / "units" / "train.jsonl.gz"
    derived.parent.mkdir()
    manifests.write_manifest(manifests.open_manifest(path), derived)
    about = manifests.describe(derived).data
    assert (about.corpus, about.synthetic) == ("toy", True)


def test_missing_and_empty_manifests_name_the_mend(tmp_path: Path) -> None:
    path = write(tmp_path, [cut(0)])
    with pytest.raises(SslbenchError, match=r"trian\.jsonl\.gz: no such manifest; did you mean train\?"):
        manifests.open_manifest(tmp_path / "trian.jsonl.gz")
    with pytest.raises(SslbenchError, match="no such manifest; run 'sslbench data prepare' first"):
        manifests.open_manifest(tmp_path / "nowhere" / "train.jsonl.gz")
    with pytest.raises(SslbenchError, match="is a folder; name one of its splits: train"):
        manifests.open_manifest(tmp_path)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(SslbenchError, match="holds no cuts"):
        manifests.open_manifest(path)
    with pytest.raises(SslbenchError, match="holds no cuts"):
        manifests.describe(path)


def test_damaged_manifests_are_called_damaged(tmp_path: Path) -> None:
    path = write(tmp_path, [cut(number) for number in range(50)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptFileError, match="is damaged"):
        manifests.describe(path)
    path.write_bytes(b"not gzip at all")
    with pytest.raises(CorruptFileError, match="is not a manifest"):
        manifests.open_manifest(path)
    path.write_bytes(gzip.compress(json.dumps({"id": "r", "sources": []}).encode() + b"\n"))
    for read in (manifests.open_manifest, manifests.describe):
        with pytest.raises(CorruptFileError, match="not cuts"):
            read(path)
    path.write_bytes(gzip.compress(json.dumps({"id": "r", "type": "MonoCut"}).encode() + b"\n"))
    with pytest.raises(CorruptFileError, match="'r' is not a cut"):
        manifests.describe(path)


def test_mixed_cuts_are_described(tmp_path: Path) -> None:
    mixed = cut(0).mix(cut(1, samples=24_000), offset_other_by=0.25)
    assert manifests.write_manifest([mixed], tmp_path / "mixed.jsonl.gz") == 1
    assert manifests.describe(tmp_path / "mixed.jsonl.gz").data.hours == round(1.75 / 3600, 6)


def test_a_smaller_corpus_leaves_no_splits_of_the_larger_one(tmp_path: Path) -> None:
    manifests.write_corpus(tmp_path, "toy", {"train": [cut(0)], "dev": [cut(1)]}, synthetic=False)
    (tmp_path / "mine.jsonl.gz").write_bytes(b"someone else's")
    write(tmp_path, [cut(0)], skipped=[{"id": "x", "reason": "torn"}])
    assert manifests.splits(tmp_path) == ["mine", "train"]
    assert manifests.read_corpus(tmp_path)["skipped"] == 1
    assert json.loads((tmp_path / "skipped.jsonl").read_text()) == {"id": "x", "reason": "torn"}


def test_a_folder_without_corpus_json_is_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(SslbenchError, match="is not a prepared corpus"):
        manifests.read_corpus(tmp_path)
