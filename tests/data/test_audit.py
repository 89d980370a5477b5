"""`sslbench data audit`: every planted fault is found and named; a clean corpus passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment

from sslbench.cli import main
from sslbench.data.audit import audit
from sslbench.data.audit.checks import ERRORS, WARNINGS, oddities
from sslbench.data.manifests import write_manifest
from sslbench.data.shar import write_shar
from sslbench.errors import SslbenchError


def make_split(folder: Path, name: str, count: int = 12, seed: int = 0, speakers: str = "") -> list[MonoCut]:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    cuts = []
    for i in range(count):
        path = folder / f"{name}{i:02d}.wav"
        samples = rng.standard_normal(int(rng.integers(8_000, 24_000))) * 0.1
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
        cut = Recording.from_file(path, recording_id=path.stem).to_cut().with_id(path.stem)
        speaker = f"{speakers or name}{i % 3}"
        cut.supervisions = [
            SupervisionSegment(cut.id, cut.id, 0.0, cut.duration, text="A WORD", speaker=speaker)
        ]
        cut.custom = {"kmeans": " ".join("3" for _ in range(-(-cut.num_samples // 320)))}
        cuts.append(cut)
    return cuts


def path_of(cut: MonoCut) -> Path:
    return Path(cut.recording.sources[0].source)


def rewrite(
    change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], rate: int = 16_000
) -> Callable[..., None]:
    def act(cut: MonoCut) -> None:
        samples, _ = soundfile.read(path_of(cut), dtype="float32")
        soundfile.write(path_of(cut), change(samples), rate, subtype="FLOAT")

    return act


def text(words: str | None) -> Callable[[MonoCut], None]:
    return lambda cut: setattr(cut.supervisions[0], "text", words)


def units(words: str | None) -> Callable[[MonoCut], None]:
    return lambda cut: setattr(cut, "custom", {"kmeans": words} if words is not None else {})


def nan(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    samples[10] = np.nan
    return samples


FAULTS: dict[str, Callable[[MonoCut], object]] = {
    "missing": lambda cut: path_of(cut).unlink(),
    "unreadable": lambda cut: path_of(cut).write_text("no audio"),
    "truncated": lambda cut: path_of(cut).write_bytes(path_of(cut).read_bytes()[:9000]),
    "wrong_rate": rewrite(lambda s: s, 8_000),
    "not_finite": rewrite(nan),
    "duration_mismatch": rewrite(lambda s: np.concatenate([s, s])),
    "clipped": rewrite(lambda s: np.clip(s * 20, -1, 1)),
    "silent": rewrite(np.zeros_like),
    "dc_offset": rewrite(lambda s: s + 0.1),
    "channels": rewrite(lambda s: np.stack([s, s], axis=1)),
    "empty_transcript": text("  "),
    "transcript_missing": text(None),
    "odd_characters": text("A\tWORD"),
    "units_mismatch": units("1 2 3"),
    "units_invalid": units("1 x 3"),
    "units_missing": units(None),
}


def found(report: dict[str, Any]) -> dict[str, list[str]]:
    return {row["kind"]: [cut["id"] for cut in row["cuts"]] for row in report["findings"]}


def test_a_clean_corpus_passes_whatever_the_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(make_split(tmp_path, "train"), tmp_path / "train.jsonl.gz")
    write_manifest(make_split(tmp_path, "dev", 4, seed=1), tmp_path / "dev.jsonl.gz")
    assert main(["data", "audit", str(tmp_path), "--jobs", "1", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["findings"] == []
    assert [split["cuts"] for split in one["splits"]] == [4, 12]
    assert audit([tmp_path], jobs=2) == one
    assert main(["data", "audit", str(tmp_path / "train.jsonl.gz"), "--jobs", "1"]) == 0
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_is_found_and_named_and_nothing_else(tmp_path: Path, kind: str) -> None:
    cuts = make_split(tmp_path, "u")
    FAULTS[kind](cuts[5])
    write_manifest(cuts, tmp_path / "train.jsonl.gz")
    report = audit([tmp_path / "train.jsonl.gz"])
    assert found(report) == {kind: ["u05"]}
    assert report["ok"] == (kind in WARNINGS)


def test_too_short_and_empty_audio(tmp_path: Path) -> None:
    cuts = make_split(tmp_path, "u", 3)
    for number, samples in ((0, 0), (1, 100)):
        soundfile.write(path_of(cuts[number]), np.full(samples, 0.1), 16_000)
        cuts[number].recording.num_samples = samples or 8000
        cuts[number].recording.duration = cuts[number].duration = (samples or 8000) / 16_000
        cuts[number].supervisions[0].duration = cuts[number].duration
        cuts[number].custom = {"kmeans": " ".join("1" for _ in range(-(-(samples or 8000) // 320)))}
    write_manifest(cuts, tmp_path / "train.jsonl.gz")
    kinds = found(audit([tmp_path / "train.jsonl.gz"]))
    assert kinds["too_short"] == ["u01"]
    assert kinds["truncated"] == ["u00"]


def test_what_splits_share(tmp_path: Path) -> None:
    train, dev = make_split(tmp_path, "train"), make_split(tmp_path, "dev", 6, seed=1)
    path_of(dev[2]).write_bytes(path_of(train[7]).read_bytes())
    dev[2].recording = train[7].recording
    dev[2].duration, dev[2].custom = train[7].duration, train[7].custom
    dev[4].supervisions[0].speaker = "train1"
    path_of(train[9]).write_bytes(path_of(train[3]).read_bytes())
    train[9].recording, train[9].duration, train[9].custom = (
        train[3].recording,
        train[3].duration,
        train[3].custom,
    )
    train[1].id = train[0].id
    for name, cuts in (("train", train), ("dev", dev)):
        write_manifest(cuts, tmp_path / f"{name}.jsonl.gz")
    report = audit([tmp_path / "train.jsonl.gz", tmp_path / "dev.jsonl.gz"], jobs=2)
    assert found(report) == {
        "duplicate_id": ["train00"],
        "audio_in_two_splits": ["train07"],
        "duplicate_audio": ["train09"],
        "speaker_in_two_splits": ["train1"],
    }
    details = {row["kind"]: row["cuts"][0]["detail"] for row in report["findings"]}
    assert details["audio_in_two_splits"] == "as dev02"
    assert details["duplicate_audio"] == "as train03"


def test_unreadable_clips_of_two_splits_are_not_the_same_audio(tmp_path: Path) -> None:
    paths = []
    for name in ("train", "dev"):
        cuts = make_split(tmp_path, name, 4)
        path_of(cuts[2]).unlink()
        for cut in cuts:
            cut.supervisions[0].speaker = name
        paths.append(tmp_path / f"{name}.jsonl.gz")
        write_manifest(cuts[2:3], paths[-1])
    assert found(audit(paths)) == {"missing": ["train02", "dev02"]}


def test_a_manifest_without_cuts_is_not_called_sound(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(SslbenchError, match=r"train\.jsonl: holds no cuts"):
        audit([tmp_path / "train.jsonl"])


def test_a_damaged_manifest_and_a_damaged_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "train.jsonl.gz"
    write_manifest(make_split(tmp_path, "u", 40), manifest)
    write_shar(manifest, tmp_path / "shar", shard_cuts=20, seed=None)
    (tmp_path / "shar" / "recording.000001.tar").write_bytes(b"torn")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "audit.json"
    assert main(["data", "audit", str(manifest), "--jobs", "1", "--out", str(out)]) == 1
    assert "manifest_damaged" in capsys.readouterr().out
    assert json.loads(out.read_text())["findings"][0]["count"] == 1
    assert found(audit([tmp_path / "shar"])) == {"missing": [f"u{i}" for i in range(20, 40)]}


def test_odd_characters_are_named() -> None:
    assert list(oddities("PLAIN, WORDS - IT'S 5")) == []
    assert list(oddities("ÉTÉ STRAẞE 日本語 привет")) == []
    assert list(oddities("E\u0301TE")) == ["not in Unicode's composed form (NFC)"]
    assert list(oddities("А WОRD")) == ["'WОRD' mixes scripts"]
    assert list(oddities("A\u200bB")) == ["U+200B ZERO WIDTH SPACE"]
    assert list(oddities("A\ufffdB")) == ["U+FFFD REPLACEMENT CHARACTER"]


def test_every_kind_has_one_level() -> None:
    assert not ERRORS.keys() & WARNINGS.keys()
    assert FAULTS.keys() <= ERRORS.keys() | WARNINGS.keys()
