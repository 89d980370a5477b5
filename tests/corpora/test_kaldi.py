"""Kaldi data directories: tables read strictly, segments cut, commands never run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslbench.corpora import PrepareOptions, kaldi
from sslbench.data.manifests import open_manifest
from sslbench.data.reading import read_cut
from sslbench.errors import SslbenchError

OPTIONS = PrepareOptions(jobs=2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two recordings of 2 s, 8 kHz stereo and 16 kHz mono, with four segments of two speakers."""
    (tmp_path / "wav").mkdir()
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "wav" / "r1.wav", rng.standard_normal((16_000, 2)) * 0.1, 8_000)
    soundfile.write(tmp_path / "wav" / "r2.wav", rng.standard_normal(32_000) * 0.1, 16_000)
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    tables = {
        "wav.scp": f"r1 wav/r1.wav\nr2 {tmp_path / 'wav' / 'r2.wav'}\n",
        "segments": "s1-a r1 0.25 1.0\ns1-b r1 1.0 2.0\ns2-a r2 0.0 0.7\ns2-b r2 0.70003 2.01\n",
        "text": "s1-a HELLO  THERE\ns1-b\ns2-a MORE\n",
        "utt2spk": "s1-a s1\ns1-b s1\ns2-a s2\ns2-b s2\n",
        "spk2gender": "s1 m\ns2 f\n",
    }
    for name, text in tables.items():
        (folder / name).write_text(text)
    return folder


def prepared(root: Path, out: Path) -> dict[str, object]:
    facts = kaldi.prepare(root, out, OPTIONS)
    return {cut.id: cut for split in facts["splits"] for cut in open_manifest(out / f"{split}.jsonl.gz")}


def test_segments_become_cuts(data: Path, tmp_path: Path) -> None:
    cuts = prepared(data, tmp_path / "out")
    assert {name: (cut.start, cut.duration) for name, cut in cuts.items()} == {
        "s1-a": (0.25, 0.75), "s1-b": (1.0, 1.0), "s2-a": (0.0, 0.7), "s2-b": (0.7, 1.3),
    }  # fmt: skip
    supervision = cuts["s1-a"].supervisions[0]
    assert (supervision.text, supervision.speaker, supervision.gender) == ("HELLO  THERE", "s1", "M")
    assert cuts["s1-b"].supervisions[0].text == ""
    assert cuts["s2-b"].supervisions[0].text is None
    whole, _ = soundfile.read(tmp_path / "wav" / "r2.wav", dtype="float32")
    np.testing.assert_array_equal(read_cut(cuts["s2-b"]).numpy(), whole[11_200:32_000])
    assert len(read_cut(cuts["s1-a"])) == 12_000  # resampled


def test_whole_recordings_without_segments(data: Path, tmp_path: Path) -> None:
    for name in ("segments", "text", "utt2spk", "spk2gender"):
        (data / name).unlink()
    cuts = prepared(data, tmp_path / "out")
    assert {name: cut.duration for name, cut in cuts.items()} == {"r1": 2.0, "r2": 2.0}


@pytest.mark.parametrize(
    ("table", "line", "message"),
    [
        ("wav.scp", "r3 sph2pipe -f wav x.sph |", r"wav\.scp:3: r3 is a command .* commands are not run"),
        ("wav.scp", "r3 /a/wav.ark:120", r"wav\.scp:3: r3 lies in an archive"),
        ("wav.scp", "r3", r"wav\.scp:3: has a key but no value"),
        ("wav.scp", "r1 again.wav", r"wav\.scp:3: r1 appears twice"),
        ("segments", "s3-a r2 0.0", r"segments:5: expected UTTERANCE RECORDING START END"),
        ("segments", "s3-a r9 0.0 1.0", r"segments:5: wav\.scp has no recording r9"),
    ],
)
def test_malformed_lines_are_named(data: Path, tmp_path: Path, table: str, line: str, message: str) -> None:
    with (data / table).open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(SslbenchError, match=message):
        kaldi.prepare(data, tmp_path / "out", OPTIONS)


def test_bad_recordings_and_segments_cost_only_themselves(data: Path, tmp_path: Path) -> None:
    (data / "wav.scp").write_text((data / "wav.scp").read_text() + "r3 gone.wav\n")
    (data / "segments").write_text((data / "segments").read_text() + "s3-a r3 0 1\ns3-b r2 1.5 9.0\n")
    facts = kaldi.prepare(data, tmp_path / "out", OPTIONS)
    assert facts["skipped"] == 2
    skipped = (tmp_path / "out" / "skipped.jsonl").read_text()
    assert "no such file" in skipped
    assert "does not lie within the recording's 2.00 s" in skipped


def test_a_folder_of_directories_gives_splits(data: Path, tmp_path: Path) -> None:
    (data.parent / "dev").mkdir()
    (data.parent / "dev" / "wav.scp").write_text("r2 ../../wav/r2.wav\n")
    facts = kaldi.prepare(data.parent, tmp_path / "out", OPTIONS)
    assert {"dev"} < set(facts["splits"])
    with pytest.raises(SslbenchError, match=r"has a wav\.scp; check --root"):
        kaldi.prepare(tmp_path / "wav", tmp_path / "out2", OPTIONS)


def test_real_speechocean(shared_dir: Path, tmp_path: Path) -> None:
    root = shared_dir / "data" / "speechocean762_mini"
    if not root.is_dir():
        pytest.skip("speechocean762 is not among the reference material")
    cuts = prepared(root, tmp_path)
    assert len(cuts) == 96
    assert cuts["004820015"].supervisions[0].text == "WE HAVE OTHERS WHO CAN DO THE SAME THING"
    people = Counter(cut.supervisions[0].speaker for cut in cuts.values())
    assert len(people) == 16
    assert set(people.values()) == {6}
