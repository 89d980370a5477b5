"""Libri-Light's layouts: stretches of speech out of long files, and the limited-supervision splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse.recipes.librilight import prepare_librilight

from sslbench.corpora import PrepareOptions, librilight, librispeech
from sslbench.data.audit import audit
from sslbench.data.manifests import open_manifest
from sslbench.data.reading import read_cut
from sslbench.errors import SslbenchError

OPTIONS = PrepareOptions(jobs=2)
VAD = [[0.5, 1.25], [1.5, 4.0], [4.1, 9.7]]


def book(
    home: Path, part: str, speaker: int, name: str = "a_book_64kb_mp3", vad: list[list[float]] | None = None
) -> Path:
    folder = home / part / str(speaker) / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "01_chapter_64kb.flac"
    soundfile.write(path, np.random.default_rng(speaker).standard_normal(160_000) * 0.1, 16_000)
    about = {"speaker": str(speaker), "book_meta": {"id": "319"}, "snr": 5.4, "voice_activity": vad or VAD}
    path.with_suffix(".json").write_text(json.dumps(about))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    root = tmp_path / "librilight"
    for speaker in (100, 101, 102):
        book(root, "small", speaker)
    book(root, "medium", 200)
    book(root, "large", 300)
    return root


def test_stretches_of_speech_become_cuts_as_in_lhotses_recipe(home: Path, tmp_path: Path) -> None:
    facts = librilight.prepare(home, tmp_path / "out", OPTIONS)
    assert {name: entry["cuts"] for name, entry in facts["splits"].items()} == {
        "small": 9,
        "medium": 3,
        "large": 3,
    }
    ours = {c.id: c for part in facts["splits"] for c in open_manifest(tmp_path / "out" / f"{part}.jsonl.gz")}
    for part in facts["splits"]:
        theirs = prepare_librilight(home)[part]["supervisions"]
        for segment in theirs:
            cut = ours.pop(segment.id)
            assert (cut.recording.id, cut.supervisions[0].speaker) == (segment.recording_id, segment.speaker)
            assert cut.start == pytest.approx(segment.start, abs=1 / 16_000)
            assert cut.duration == pytest.approx(segment.duration, abs=1 / 16_000)
            whole, _ = soundfile.read(cut.recording.sources[0].source, dtype="float32")
            first = round(cut.start * 16_000)
            np.testing.assert_array_equal(read_cut(cut).numpy(), whole[first : first + cut.num_samples])
    assert not ours


def test_bad_files_and_segments_are_named_or_counted(home: Path, tmp_path: Path) -> None:
    book(home, "small", 103, vad=[[0.0, 2.0], [9.0, 10.5], [20.0, 22.0], [3.0, 3.05]])
    book(home, "small", 104).with_suffix(".json").write_text('{"speaker": "104"}')
    book(home, "small", 105).write_bytes(b"fLaC torn")
    plain = book(home, "small", 106)
    plain.with_suffix(".json").unlink()
    soundfile.write(book(home, "small", 107), np.zeros(8_000), 8_000)
    facts = librilight.prepare(home, tmp_path / "out", OPTIONS)
    assert facts["bad_segments"] == 2
    rows = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    reasons = {row["id"].split("/")[1]: row["reason"] for row in rows}
    assert reasons.keys() == {"104", "105", "107"}
    assert "lacks a speaker or voice_activity" in reasons["104"]
    assert "not readable as audio" in reasons["105"]
    assert reasons["107"] == "8000 Hz, 1 channels instead of 16 kHz mono"
    cuts = {cut.id: cut for cut in open_manifest(tmp_path / "out" / "small.jsonl.gz")}
    assert cuts["small/103/a_book_64kb_mp3/01_chapter_64kb_1"].duration == 1.0  # ends with the file
    assert cuts["small/106/a_book_64kb_mp3/01_chapter_64kb_0"].duration == 10.0
    assert audit([tmp_path / "out" / "small.jsonl.gz"])["ok"]


def test_a_limit_keeps_part_of_each_and_nothing_usable_is_an_error(home: Path, tmp_path: Path) -> None:
    facts = librilight.prepare(home, tmp_path / "out", PrepareOptions(jobs=1, limit=2))
    assert {name: entry["cuts"] for name, entry in facts["splits"].items()} == {
        "small": 2,
        "medium": 2,
        "large": 2,
    }
    with pytest.raises(SslbenchError, match="holds none of small, medium, large"):
        librilight.prepare(tmp_path, tmp_path / "out2", OPTIONS)
    for path in home.rglob("*.flac"):
        path.write_bytes(b"")
    with pytest.raises(SslbenchError, match="none of 5 recordings can be used"):
        librilight.prepare(home, tmp_path / "out3", OPTIONS)
    assert not (tmp_path / "out3" / "corpus.json").exists()


def limited_tree(home: Path) -> None:
    """`librispeech_finetuning`: six folds of 10 min under 1h, the other nine hours, phones."""
    speaker = 1000
    folds = [f"1h/{fold}" for fold in range(6)]
    for folder in [f"{fold}/{kind}" for fold in [*folds, "9h"] for kind in ("clean", "other")]:
        speaker += 1
        chapter = home / "librispeech_finetuning" / folder / str(speaker) / "5"
        chapter.mkdir(parents=True)
        name = f"{speaker}-5-0000"
        soundfile.write(
            chapter / f"{name}.flac", np.random.default_rng(speaker).standard_normal(8_000) * 0.1, 16_000
        )
        (chapter / f"{speaker}-5.trans.txt").write_text(f"{name} SOME WORDS\n")
    (home / "librispeech_finetuning" / "phones").mkdir()


@pytest.mark.parametrize("where", ["", "librispeech_finetuning"])
def test_limited_supervision_splits(tmp_path: Path, where: str) -> None:
    limited_tree(tmp_path)
    facts = librispeech.prepare(tmp_path / where, tmp_path / "out", OPTIONS)
    assert {name: entry["cuts"] for name, entry in facts["splits"].items()} == {
        "train-10min": 2, "train-1h": 12, "train-10h": 14,
    }  # fmt: skip
    ids = {
        name: {cut.id for cut in open_manifest(tmp_path / "out" / f"{name}.jsonl.gz")}
        for name in facts["splits"]
    }
    assert ids["train-10min"] == {"1001-5-0000", "1002-5-0000"}
    assert ids["train-10min"] < ids["train-1h"] < ids["train-10h"]
    assert facts["skipped"] == 0
    assert facts["notes"] == []  # its few speakers are not held out for a dev split
    assert audit([tmp_path / "out"])["ok"]  # one training split within another is no leak


def test_limited_supervision_beside_the_official_splits(tmp_path: Path) -> None:
    limited_tree(tmp_path)
    chapter = tmp_path / "LibriSpeech" / "dev-clean" / "84" / "1"
    chapter.mkdir(parents=True)
    soundfile.write(chapter / "84-1-0000.flac", np.random.default_rng(0).standard_normal(8_000) * 0.1, 16_000)
    (chapter / "84-1.trans.txt").write_text("84-1-0000 MORE WORDS\n")
    facts = librispeech.prepare(tmp_path, tmp_path / "out", OPTIONS)
    assert set(facts["splits"]) == {"dev-clean", "train-10min", "train-1h", "train-10h"}


def test_held_out_speakers_leave_the_limited_splits_too(tmp_path: Path) -> None:
    limited_tree(tmp_path)
    for speaker in range(1001, 1015):  # all of the limited splits' speakers, in another chapter
        chapter = tmp_path / "LibriSpeech" / "train-clean-100" / str(speaker) / "6"
        chapter.mkdir(parents=True)
        noise = np.random.default_rng(speaker).standard_normal(8_000) * 0.1
        soundfile.write(chapter / f"{speaker}-6-0000.flac", noise, 16_000)
        (chapter / f"{speaker}-6.trans.txt").write_text(f"{speaker}-6-0000 OTHER WORDS\n")
    facts = librispeech.prepare(tmp_path, tmp_path / "out", OPTIONS)
    people = {
        name: {cut.supervisions[0].speaker for cut in open_manifest(tmp_path / "out" / f"{name}.jsonl.gz")}
        for name in facts["splits"]
    }
    held = people["dev-heldout"] | people["test-heldout"]
    assert len(people["dev-heldout"]) + len(people["test-heldout"]) == len(held) >= 4
    assert people["train-10h"] == people["train-clean-100"] == set(map(str, range(1001, 1015))) - held
    assert people["train-1h"] <= people["train-10h"]
