"""A folder of audio: sound files become cuts, every bad one is named with its reason, nothing stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslbench.corpora import PrepareOptions
from sslbench.corpora._checked import held_out
from sslbench.corpora.folder import prepare
from sslbench.data.manifests import open_manifest, read_corpus
from sslbench.errors import SslbenchError

JOBS = PrepareOptions(jobs=2)


def noise(seconds: float = 1.0, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    return (np.random.RandomState(seed).randn(int(seconds * rate)) * 0.1).astype(np.float32)


def tree(root: Path, speakers: int = 4, each: int = 2) -> Path:
    for speaker in range(speakers):
        folder = root / f"spk{speaker}"
        folder.mkdir(parents=True)
        for number in range(each):
            soundfile.write(folder / f"{number}.wav", noise(seed=10 * speaker + number), 16_000)
    return root


def truncated(path: Path) -> None:
    soundfile.write(path, noise(), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path: Path) -> None:
    audio = noise()
    audio[7] = np.nan
    soundfile.write(path, audio, 16_000, subtype="FLOAT")


def corrupt_flac(path: Path) -> None:
    soundfile.write(path, noise(), 16_000)
    whole = bytearray(path.read_bytes())
    whole[8000:12000] = bytes(4000)
    path.write_bytes(whole)


def wrong_header(path: Path) -> None:
    soundfile.write(path, noise(), 16_000)
    whole = bytearray(path.read_bytes())
    whole[24:28] = bytes(4)  # a sampling rate of 0 Hz
    path.write_bytes(whole)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut.flac": (truncated, "cannot be read as audio"),
    "cut.wav": (truncated, "truncated: the header promises 16022 more bytes than there are"),
    "torn.flac": (corrupt_flac, "cannot be read as audio"),
    "text.wav": (lambda path: path.write_text("these are words\n" * 50), "Format not recognised"),
    "empty.wav": (lambda path: path.write_bytes(b""), "the file is empty (0 bytes)"),
    "nosamples.wav": (lambda path: soundfile.write(path, noise()[:0], 16_000), "holds no samples"),
    "nan.wav": (with_nan, "holds samples that are not finite"),
    "header.wav": (wrong_header, "not readable as audio"),
    "click.wav": (lambda path: soundfile.write(path, noise(0.01), 16_000), "shorter than 25 ms (160 samples"),
    "gone.wav": (lambda path: path.symlink_to("nowhere.wav"), "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_every_kind_of_bad_file_is_left_out_by_name(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, out = tree(tmp_path / "root"), tmp_path / "out"
    make, reason = BAD[name]
    make(root / "spk1" / name)
    facts = prepare(root, out, JOBS)
    assert facts["skipped"] == 1
    assert sum(entry["cuts"] for entry in facts["splits"].values()) == 8
    (row,) = map(json.loads, (out / "skipped.jsonl").read_text().splitlines())
    assert row["path"] == str(root / "spk1" / name)
    assert reason in row["reason"]
    assert f"{row['path']}: {row['reason']}" in capfd.readouterr().err


def test_nothing_but_bad_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for name, (make, _) in BAD.items():
        make(tmp_path / "root" / name)
    with pytest.raises(SslbenchError, match=f"none of {len(BAD)} recordings can be used .first: .*click.wav"):
        prepare(tmp_path / "root", tmp_path / "out", JOBS)
    assert not (tmp_path / "out" / "corpus.json").exists()
    assert len((tmp_path / "out" / "skipped.jsonl").read_text().splitlines()) == len(BAD)


def test_no_audio_and_no_folder_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to hear")
    with pytest.raises(SslbenchError, match="no audio in this folder tree"):
        prepare(tmp_path, tmp_path / "out", JOBS)
    with pytest.raises(SslbenchError, match="no such folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out", JOBS)
    with pytest.raises(SslbenchError, match="has no presets"):
        prepare(tmp_path, tmp_path / "out", PrepareOptions("tiny"))


def test_other_rates_and_channels_are_converted_and_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tree(tmp_path / "root"), tmp_path / "out"
    time = np.arange(8000) / 8000
    tone = 0.3 * np.sin(2 * np.pi * 440 * time).astype(np.float32)
    soundfile.write(root / "spk0" / "phone.wav", tone, 8000)
    soundfile.write(root / "spk0" / "stereo.wav", np.stack([noise(), np.zeros(16_000)], 1), 16_000)
    facts = prepare(root, out, JOBS)
    assert [note.split(" were")[0] for note in facts["notes"]] == [
        "1 files of 8000 Hz, 1 channel", "1 files of 16000 Hz, 2 channels",
    ]  # fmt: skip
    assert "1 files of 8000 Hz, 1 channel were copied as 16000 Hz mono flac" in capsys.readouterr().out
    cuts = {cut.id: cut for split in facts["splits"] for cut in open_manifest(out / f"{split}.jsonl.gz")}
    phone = cuts["spk0-phone"].load_audio()[0]
    assert phone.shape == (16_000,)
    assert np.abs(np.fft.rfft(phone)).argmax() == 440  # the tone is where it was
    assert cuts["spk0-stereo"].load_audio().shape == (1, 16_000)
    # the copies are not taken for recordings when the out folder lies inside the root
    inside = root / "manifests"
    assert prepare(root, inside, JOBS)["splits"] == prepare(root, inside, JOBS)["splits"]


def test_transcripts_beside_audio_are_read(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "root"), tmp_path / "out"
    (root / "spk0" / "0.txt").write_text("hello  there\n")
    (root / "spk1" / "spk1.trans.txt").write_text("0 good morning\n1 GOOD NIGHT\n")
    facts = prepare(root, out, JOBS)
    texts = {
        cut.id: cut.supervisions[0].text
        for split in facts["splits"]
        for cut in open_manifest(out / f"{split}.jsonl.gz")
    }
    assert texts["spk0-0"] == "HELLO THERE"
    assert (texts["spk1-0"], texts["spk1-1"]) == ("GOOD MORNING", "GOOD NIGHT")
    assert texts["spk2-0"] is None


def test_dev_is_a_stable_choice_of_speakers(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", speakers=12, each=1)
    prepare(root, tmp_path / "out", JOBS)
    dev = {cut.supervisions[0].speaker for cut in open_manifest(tmp_path / "out" / "dev.jsonl.gz")}
    train = {cut.supervisions[0].speaker for cut in open_manifest(tmp_path / "out" / "train.jsonl.gz")}
    assert dev
    assert not dev & train
    names = [f"speaker{n}" for n in range(1000)]
    before, after = held_out(names[:500], 10), held_out(names, 10)
    assert before == after & set(names[:500])
    assert 70 < len(after) < 130
    assert all(len(held_out(names[:28], 10, salt)) >= 3 for salt in "abcdefgh")
    assert held_out(["only"], 10) == set()
    assert len(held_out(["a", "b"], 10)) == 1


def test_an_unchanged_file_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sslbench.corpora import _checked

    root, out = tree(tmp_path / "root"), tmp_path / "out"
    first = prepare(root, out, JOBS)
    decoded: list[Path] = []
    honest = _checked.check_audio
    monkeypatch.setattr(
        _checked, "check_audio", lambda path, copy=None: decoded.append(path) or honest(path, copy)
    )
    cache = out / "checked.jsonl"
    cache.write_text(cache.read_text() + '{"path": "torn by a kill')
    assert prepare(root, out, JOBS) == first
    assert not decoded
    soundfile.write(root / "spk3" / "1.wav", noise(2.0), 16_000)
    assert prepare(root, out, JOBS)["splits"] != first["splits"]
    assert decoded == [root / "spk3" / "1.wav"]


def test_names_that_would_collide_stay_apart(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", speakers=3, each=1)
    soundfile.write(root / "spk0" / "0.flac", noise(), 16_000)
    facts = prepare(root, tmp_path / "out", JOBS)
    ids = {
        cut.id for split in facts["splits"] for cut in open_manifest(tmp_path / "out" / f"{split}.jsonl.gz")
    }
    assert ids == {"spk0-0_flac", "spk0-0_wav", "spk1-0", "spk2-0"}


def test_limit_takes_from_everywhere(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", speakers=12, each=4)
    facts = prepare(root, tmp_path / "out", PrepareOptions(jobs=2, limit=8))
    assert facts["splits"]["train"]["cuts"] == 8
    speakers = {cut.supervisions[0].speaker for cut in open_manifest(tmp_path / "out" / "train.jsonl.gz")}
    assert len(speakers) > 2


def test_real_german_speech_at_22_khz(shared_dir: Path, tmp_path: Path) -> None:
    root = shared_dir / "data" / "emodb_mini"
    if not root.is_dir():
        pytest.skip("EmoDB is not among the reference material")
    prepare(root, tmp_path, PrepareOptions(jobs=2, limit=12))
    assert read_corpus(tmp_path)["skipped"] == 0
    for cut in open_manifest(tmp_path / "train.jsonl.gz"):
        assert cut.sampling_rate == 16_000
        assert cut.load_audio().shape == (1, cut.num_samples)
