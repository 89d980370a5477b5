"""LibriSpeech's layout: the splits that are there, bad lines left out, held-out speakers where needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslbench.corpora import PrepareOptions, librispeech, mini_librispeech
from sslbench.data.manifests import open_manifest, read_corpus
from sslbench.errors import SslbenchError

OPTIONS = PrepareOptions(jobs=2)


def split(home: Path, name: str, speakers: range, each: int = 2) -> None:
    for speaker in speakers:
        folder = home / name / str(speaker) / "7"
        folder.mkdir(parents=True)
        lines = []
        for number in range(each):
            utterance = f"{speaker}-7-{number:04d}"
            audio = np.random.RandomState(speaker + number).randn(8000).astype(np.float32) * 0.1
            soundfile.write(folder / f"{utterance}.flac", audio, 16_000)
            lines.append(f"{utterance} WORD {number}\n")
        (folder / f"{speaker}-7.trans.txt").write_text("".join(lines))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "LibriSpeech"
    split(folder, "train-clean-100", range(100, 112))
    (folder / "SPEAKERS.TXT").write_text(
        ";ID  |SEX| SUBSET           |MINUTES| NAME\n100  | F | train-clean-100  | 25.03 | Someone\n"
    )
    return folder


def speakers(path: Path) -> set[str]:
    return {cut.supervisions[0].speaker for cut in open_manifest(path)}


def test_official_splits_are_kept_as_they_are(home: Path, tmp_path: Path) -> None:
    split(home, "dev-clean", range(200, 202))
    split(home, "test-other", range(300, 302))
    facts = librispeech.prepare(home, tmp_path / "out", OPTIONS)
    assert {name: entry["cuts"] for name, entry in facts["splits"].items()} == {
        "train-clean-100": 24, "dev-clean": 4, "test-other": 4,
    }  # fmt: skip
    assert facts["notes"] == []
    assert not facts["synthetic"]
    first = next(iter(open_manifest(tmp_path / "out" / "train-clean-100.jsonl.gz")))
    supervision = first.supervisions[0]
    assert (supervision.text, supervision.speaker, supervision.gender) == ("WORD 0", "100", "F")
    assert first.load_audio().shape == (1, 8000)


def test_the_three_training_parts_are_train_960_without_held_out_speakers(home: Path, tmp_path: Path) -> None:
    split(home, "train-clean-360", range(400, 412))
    split(home, "train-other-500", range(500, 512))
    facts = librispeech.prepare(home, tmp_path / "out", OPTIONS)["splits"]
    parts = ("train-clean-100", "train-clean-360", "train-other-500")
    assert facts["train-960"]["cuts"] == sum(facts[part]["cuts"] for part in parts)
    held = speakers(tmp_path / "out" / "dev-heldout.jsonl.gz")
    assert not held & speakers(tmp_path / "out" / "train-960.jsonl.gz")


def test_chapters_are_sessions_and_a_lexicon_comes_along(home: Path, tmp_path: Path) -> None:
    folder = home / "train-clean-100" / "100" / "9"
    folder.mkdir()
    soundfile.write(folder / "100-9-0000.flac", np.zeros(8000), 16_000)
    (folder / "100-9.trans.txt").write_text("100-9-0000 MORE\n")
    (home / "librispeech-lexicon.txt").write_text("WORD\tW ER1 D\n")
    facts = librispeech.prepare(home, tmp_path / "out", OPTIONS)
    cuts = {
        cut.id: cut
        for name in facts["splits"]
        for cut in open_manifest(tmp_path / "out" / f"{name}.jsonl.gz")
    }
    sessions = {name: cut.supervisions[0].custom["session"] for name, cut in cuts.items()}
    assert (sessions["100-7-0000"], sessions["100-9-0000"], sessions["101-7-0000"]) == (0, 1, 0)
    assert (tmp_path / "out" / "lexicon.txt").read_text() == "WORD\tW ER1 D\n"
    s3prls = ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")
    for name in s3prls:
        (home.parent / name).write_text(f"{name}\tW\n")
    librispeech.prepare(home, tmp_path / "all", OPTIONS)
    for name in s3prls:
        assert (tmp_path / "all" / name).read_text() == f"{name}\tW\n"
    assert not (tmp_path / "all" / "lexicon.txt").exists(), "OpenSLR's would come before s3prl's"


def test_missing_dev_and_test_come_from_other_speakers(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = librispeech.prepare(home.parent, tmp_path / "out", OPTIONS)
    names = ("train-clean-100", "dev-heldout", "test-heldout")
    assert tuple(facts["splits"]) == names
    people = [speakers(tmp_path / "out" / f"{name}.jsonl.gz") for name in names]
    assert sum(map(len, people)) == len(set.union(*people)) == 12
    assert "no official dev split here, so" in capsys.readouterr().out
    assert len(facts["notes"]) == 2


def test_bad_lines_cost_only_themselves(home: Path, tmp_path: Path) -> None:
    folder = home / "train-clean-100" / "100" / "7"
    torn = folder / "100-7-0000.flac"
    torn.write_bytes(torn.read_bytes()[:3000])
    soundfile.write(folder / "100-7-0001.flac", np.zeros(8000), 8000)
    with (folder / "100-7.trans.txt").open("a") as lines:
        lines.write("100-7-0002 NOT THERE\n")
    soundfile.write(folder / "100-7-0003.flac", np.zeros(8000), 16_000)
    facts = librispeech.prepare(home, tmp_path / "out", OPTIONS)
    rows = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    reasons = {row["id"]: row["reason"] for row in rows}
    assert "cannot be read as audio" in reasons["100-7-0000"]
    assert reasons["100-7-0001"] == "8000 Hz, 1 channel instead of 16 kHz mono; the corpus 'folder' converts"
    assert reasons["100-7-0002"] == "the transcript names it but there is no such file"
    assert reasons["100-7-0003"] == "no transcript names it"
    assert facts["skipped"] == 4
    assert sum(entry["cuts"] for entry in facts["splits"].values()) == 22


def test_a_folder_without_splits_is_a_clear_error(tmp_path: Path, home: Path) -> None:
    with pytest.raises(SslbenchError, match="holds none of the librispeech splits"):
        librispeech.prepare(tmp_path / "empty", tmp_path / "out", OPTIONS)
    with pytest.raises(SslbenchError, match="holds none of the mini_librispeech splits"):
        mini_librispeech.prepare(home, tmp_path / "out", OPTIONS)


def test_real_mini_librispeech(shared_dir: Path, tmp_path: Path) -> None:
    from lhotse.recipes.librispeech import prepare_librispeech

    root = shared_dir / "data" / "librispeech_mini"
    if not root.is_dir():
        pytest.skip("Mini LibriSpeech is not among the reference material")
    mini_librispeech.prepare(root, tmp_path, OPTIONS)
    facts = read_corpus(tmp_path)
    assert facts["skipped"] == 0
    ours = {
        cut.id: (cut.supervisions[0].text, cut.supervisions[0].speaker, cut.num_samples)
        for name in facts["splits"]
        for cut in open_manifest(tmp_path / f"{name}.jsonl.gz")
    }
    read = prepare_librispeech(root / "LibriSpeech", dataset_parts="train-clean-5")["train-clean-5"]
    samples = {recording.id: recording.num_samples for recording in read["recordings"]}
    theirs = {s.recording_id: (s.text, s.speaker, samples[s.recording_id]) for s in read["supervisions"]}
    assert ours == theirs
