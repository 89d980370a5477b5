"""The embedded corpus: same bytes every time, honest splits, true phone times, official layout."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from sslbench.corpora import PrepareOptions
from sslbench.corpora.mini import grammar, pcm_hash, prepare, render, speakers
from sslbench.corpora.mini.phones import ARPABET, align, to_arpabet
from sslbench.data.manifests import open_manifest, read_corpus
from sslbench.errors import SslbenchError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="needs the synthesizer: pip install 'sslbench[mini]'",
)

SPEAKING = ("train-clean-100", "dev-clean", "test-clean", "test-other")


@pytest.fixture(scope="module")
def splits(mini_corpus: Path) -> dict[str, CutSet]:
    return {
        split: open_manifest(mini_corpus / f"{split}.jsonl.gz").to_eager()
        for split in read_corpus(mini_corpus)["splits"]
    }


def few(count: int = 3) -> list[speakers.Speaker]:
    size = speakers.Preset({"train-clean-100": count - 1, "test-other": 1}, 6)
    return speakers.speakers(size, seed=3)


def test_samples_depend_on_neither_jobs_nor_order(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    cast = few()
    alone = [row for speaker in reversed(cast) for row in render.speaker_rows(speaker, tmp_path / "alone")]
    with ThreadPoolExecutor(3) as pool:
        rows = [
            r for found in pool.map(lambda s: render.speaker_rows(s, tmp_path / "busy"), cast) for r in found
        ]
    assert pcm_hash(alone) == pcm_hash(rows)
    for row in rows:
        pcm, rate = soundfile.read(tmp_path / "busy" / row["path"], dtype="int16")
        assert (rate, len(pcm)) == (16_000, row["samples"])
        assert row["pcm_sha256"] == render.hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()


def test_another_seed_speaks_otherwise(tmp_path: Path) -> None:
    size = speakers.Preset({"train-clean-100": 1}, 3)
    hashes = {
        pcm_hash(render.speaker_rows(speakers.speakers(size, seed)[0], tmp_path / str(seed)))
        for seed in (0, 1)
    }
    assert len(hashes) == 2


def test_the_corpus_hash_is_the_known_one(mini_corpus: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the synthesizer's noise comes from the C library, which differs here")
    facts = read_corpus(mini_corpus)
    golden = json.loads((Path(__file__).parent / "mini_tiny_hash.json").read_text())
    if facts["engine"] != golden["engine"]:
        pytest.skip(f"the known hash is for {golden['engine']}, this is {facts['engine']}")
    assert facts["pcm_sha256"] == golden["pcm_sha256"]


def test_rerunning_makes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(speakers.PRESETS, "few", speakers.Preset({"train-clean-100": 2, "dev-clean": 1}, 4))
    options = PrepareOptions("few", seed=1)
    first = prepare(tmp_path / "audio", tmp_path / "out", options)
    spoken: list[int] = []
    honest = render.speak
    monkeypatch.setattr(render, "speak", lambda *a, **k: spoken.append(1) or honest(*a, **k))
    stamp = (tmp_path / "out" / "corpus.json").stat().st_mtime_ns
    assert prepare(tmp_path / "audio", tmp_path / "out", options) == first
    assert not spoken
    assert (tmp_path / "out" / "corpus.json").stat().st_mtime_ns == stamp
    torn = next((tmp_path / "audio" / "LibriSpeech" / "dev-clean").rglob("*.flac"))
    torn.write_bytes(torn.read_bytes()[:100])
    assert prepare(tmp_path / "audio", tmp_path / "out", options) == first
    assert len(spoken) == 1
    assert soundfile.info(torn).frames > 1000


def test_one_root_holds_one_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(speakers.PRESETS, "few", speakers.Preset({"train-clean-100": 1}, 2))
    prepare(tmp_path / "audio", tmp_path / "out", PrepareOptions("few"))
    with pytest.raises(SslbenchError, match="choose another --root"):
        prepare(tmp_path / "audio", tmp_path / "out", PrepareOptions("few", seed=1))
    with pytest.raises(SslbenchError, match="no preset 'tinny'; did you mean"):
        prepare(tmp_path / "new", tmp_path / "out", PrepareOptions("tinny"))


def test_a_missing_synthesizer_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SslbenchError, match=r"not installed; pip install 'sslbench\[mini\]'"):
        prepare(tmp_path / "audio", tmp_path / "out", PrepareOptions("tiny"))


def test_the_synthesizer_never_enters_this_process(mini_corpus: Path) -> None:
    assert "espeakng_loader" not in sys.modules
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert "espeak" not in maps.read_text()


def test_splits_share_neither_speakers_nor_sentences(splits: dict[str, CutSet]) -> None:
    people = {split: {c.supervisions[0].speaker for c in splits[split]} for split in SPEAKING}
    said = {
        split: {
            c.supervisions[0].text
            for c in splits[split]
            if c.supervisions[0].custom["kind"] in grammar.SPLIT_KINDS
        }
        for split in SPEAKING
    }
    for left in SPEAKING:
        for right in SPEAKING:
            if left != right:
                assert not people[left] & people[right]
                assert not said[left] & said[right]


def test_label_subsets_are_nested_and_meet_every_speaker(splits: dict[str, CutSet]) -> None:
    small, middle, full = ({c.id for c in splits[s]} for s in ("train-10min", "train-1h", "train-clean-100"))
    assert small < middle < full
    assert {c.supervisions[0].speaker for c in splits["train-10min"]} == {
        c.supervisions[0].speaker for c in splits["train-clean-100"]
    }


def test_every_speaker_has_sessions_genders_and_labels(splits: dict[str, CutSet]) -> None:
    by_speaker: dict[str, set[int]] = {}
    for cut in splits["train-clean-100"]:
        supervision = cut.supervisions[0]
        labels = supervision.custom
        by_speaker.setdefault(supervision.speaker, set()).add(labels["session"])
        assert supervision.gender in ("M", "F")
        assert labels["emotion"] in grammar.EMOTIONS
        if labels["kind"] == "slots":
            assert len(labels["slots"].split()) == len(supervision.text.split())
        if labels["kind"] == "intent":
            assert labels["action"]
            assert labels["object"]
            assert labels["location"]
    assert set(map(frozenset, by_speaker.values())) == {frozenset({0, 1, 2})}


def test_phones_tile_every_utterance(splits: dict[str, CutSet]) -> None:
    for cut in splits["test-clean"]:
        items = cut.supervisions[0].alignment["phone"]
        assert {item.symbol for item in items} <= {*ARPABET, "SIL"}
        assert items[0].start == 0.0
        assert items[-1].end == pytest.approx(cut.duration, abs=1e-4)
        for before, after in pairwise(items):
            assert before.end == pytest.approx(after.start, abs=1e-4)
            assert before.duration > 0


def test_phones_are_those_of_the_words(splits: dict[str, CutSet], mini_corpus: Path) -> None:
    import kaldialign

    rows = (line.split() for line in (mini_corpus / "lexicon.txt").read_text().splitlines())
    lexicon = {row[0]: row[1:] for row in rows}
    errors = total = 0
    for cut in splits["train-clean-100"]:
        supervision = cut.supervisions[0]
        expected = [phone for word in supervision.text.split() for phone in lexicon[word]]
        heard = [item.symbol for item in supervision.alignment["phone"] if item.symbol != "SIL"]
        errors += kaldialign.edit_distance(expected, heard)["total"]
        total += len(expected)
    # connected speech reduces some function words
    assert errors / total < 0.03


def test_silence_is_silent_and_speech_is_not(splits: dict[str, CutSet]) -> None:
    for cut in list(splits["dev-clean"])[:10]:
        audio = cut.load_audio()[0]
        first, *_, last = cut.supervisions[0].alignment["phone"]
        speech = audio[int(first.end * 16_000) : int(last.start * 16_000)]
        silence = audio[: int(first.end * 16_000)]
        assert np.abs(audio).max() < 0.999
        assert 20 * np.log10(speech.std() / silence.std()) > 20


def test_lhotse_reads_the_layout_as_librispeech(mini_corpus: Path, splits: dict[str, CutSet]) -> None:
    from lhotse.recipes.librispeech import prepare_librispeech

    root = mini_corpus.parent / "audio" / "LibriSpeech"
    read = prepare_librispeech(root, dataset_parts=list(SPEAKING))
    for split in SPEAKING:
        texts = {s.recording_id: s.text for s in read[split]["supervisions"]}
        assert texts == {c.id: c.supervisions[0].text for c in splits[split]}


def test_marks_belong_to_the_phone_before_and_gaps_are_silence() -> None:
    events = [(10, "t"), (20, "'aI3"), (40, ";"), (50, "_:"), (60, "_")]
    assert align(events, 80) == [
        ("SIL", 0, 10),
        ("T", 10, 20),
        ("AY", 20, 30),
        ("ER", 30, 50),
        ("SIL", 50, 80),
    ]
    with pytest.raises(SslbenchError, match="has no ARPAbet phone"):
        to_arpabet("R2D2")


def test_the_linking_r_of_a_diphone_is_no_second_phone() -> None:
    linked = [(0, "f"), (10, "O@"), (30, ";"), (40, "r"), (50, "'a"), (60, "l"), (70, "l")]
    expected = [("F", 0, 10), ("AO", 10, 20), ("R", 20, 50), ("AE", 50, 60), ("L", 60, 70), ("L", 70, 80)]
    assert align(linked, 80) == expected


def test_mixtures_overlap_and_tell_who_speaks_when(splits: dict[str, CutSet], mini_corpus: Path) -> None:
    sources = {cut.id: cut for split in SPEAKING for cut in splits[split]}
    for cut in splits["mix2-dev"]:
        turns = cut.supervisions
        assert len({turn.speaker for turn in turns}) == 2
        assert all(before.end > after.start for before, after in pairwise(turns))
        audio = cut.load_audio()[0]
        first = turns[0]
        source = sources[first.custom["source"]]
        lead = source.supervisions[0].alignment["phone"][0].end
        alone = source.load_audio()[0][int(lead * 16_000) :]
        # until the second speaker begins, the mixture is the first speaker's recording
        length = int((turns[1].start - first.start) * 16_000) - 8000
        start = round(first.start * 16_000)
        quiet = audio[start : start + length] - alone[:length]
        assert np.abs(quiet).max() < 1e-3
    rttm = (mini_corpus.parent / "audio" / "mixtures" / "mix2-dev.rttm").read_text().splitlines()
    assert len(rttm) == sum(len(cut.supervisions) for cut in splits["mix2-dev"])
    assert {line.split()[7] for line in rttm} <= {cut.supervisions[0].speaker for cut in splits["dev-clean"]}


def test_the_vocabulary_is_pronounceable_and_large() -> None:
    words = grammar.all_words()
    assert len(words) > 600
    entries = render.lexicon(tuple(words))
    assert all(entries[word] and set(entries[word]) <= set(ARPABET) for word in words)


def test_adjective_noun_pairs_are_kept_for_the_tests() -> None:
    adjectives = set(grammar.words.ADJECTIVES)

    def pairs(split: str, count: int) -> set[str]:
        said = (
            u.text.split()
            for s in range(count)
            for u in grammar.utterances(s, split, 60, 0)
            if u.kind == "sentence"
        )
        return {f"{a} {b}" for text in said for a, b in pairwise(text) if a in adjectives}

    training, testing = pairs("train-clean-100", 32), pairs("test-clean", 4)
    kept = {pair for pair in testing if grammar._bucket(pair, 5) == 0}
    assert 0.1 < len(kept) / len(testing) < 0.35
    assert not kept & training


def test_a_failing_synthesizer_process_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "worker.py"
    broken.write_text("import sys; sys.exit('no data folder')\n")
    monkeypatch.setattr(render, "WORKER", broken)
    with pytest.raises(SslbenchError, match=r"process failed \(status 1: no data folder\)"):
        render.speak(render.PLAIN_VARIANT, [], seed=1)


@pytest.mark.slow
def test_a_killed_preparation_is_finished_by_the_next(tmp_path: Path, mini_corpus: Path) -> None:
    import subprocess
    import time

    folders = ["--root", str(tmp_path / "audio"), "--out", str(tmp_path / "out"), "--jobs", "2"]
    command = [sys.executable, "-m", "sslbench", "data", "prepare", "mini", "--preset", "tiny", *folders]
    running = subprocess.Popen(command)
    until = time.monotonic() + 120
    while len(list((tmp_path / "audio" / "truth").glob("*.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    running.kill()
    running.wait()
    assert not (tmp_path / "out" / "corpus.json").exists()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "audio" / "truth").glob("*.json")}
    assert 2 <= len(made) < 12
    subprocess.run(command, check=True)
    assert read_corpus(tmp_path / "out")["pcm_sha256"] == read_corpus(mini_corpus)["pcm_sha256"]
    assert {path: path.stat().st_mtime_ns for path in made} == made  # what was whole was kept
