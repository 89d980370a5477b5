"""Error counts are right, equal to jiwer's, and every odd input is named."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from sslbench.data.shar import write_shar
from sslbench.errors import SslbenchError
from sslbench.finetune.counts import Counts, count_edits, count_edits_sclite
from sslbench.finetune.evaluate import ScoreOptions, score_files
from sslbench.finetune.listing import difference, length_lines, listing, speaker_lines, summary
from sslbench.finetune.scoring import NORMALISERS, compare, score
from sslbench.finetune.transcripts import Transcript, read_transcripts
from sslbench.io import read_json, write_json, write_jsonl

WORDS = ["A", "THE", "CAT", "KATZE", "ÄÖÜ", "日本語", "3", "27", "O'CLOCK", "🙂", "É"]


def _transcripts(texts: dict[str, str], speakers: dict[str, str] | None = None) -> dict[str, Transcript]:
    return {i: Transcript(i, text, (speakers or {}).get(i)) for i, text in texts.items()}


def _pairs(number: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    made = []
    for _ in range(number):
        said = [rng.choice(WORDS) for _ in range(rng.randint(0, 9))]
        heard = [rng.choice(WORDS) if rng.random() < 0.3 else word for word in said if rng.random() < 0.85]
        made.append((" ".join(said), " ".join(heard + rng.choices(WORDS, k=rng.randint(0, 2)))))
    return made


def test_equal_to_jiwer_on_random_pairs() -> None:
    jiwer = pytest.importorskip("jiwer")
    pairs = _pairs(10_000)
    assert sum(not said for said, _ in pairs) > 200  # empty references are among them
    for said, heard in pairs:
        ours = count_edits(said.split(), heard.split())
        if not said:  # jiwer refuses an empty reference; every word is an insertion
            assert ours == Counts(ins=len(heard.split()))
            continue
        theirs = jiwer.process_words(said, heard)
        assert ours.errors == theirs.substitutions + theirs.deletions + theirs.insertions
        assert ours.ref == theirs.hits + theirs.substitutions + theirs.deletions
        characters = count_edits(said, heard)
        assert characters.rate == pytest.approx(jiwer.cer(said, heard))
    spoken = [pair for pair in pairs if pair[0]]
    refs, hyps = ({str(i): pair[side] for i, pair in enumerate(spoken)} for side in (0, 1))
    pooled = score(_transcripts(refs), _transcripts(hyps), "raw").total("words").rate
    assert pooled == pytest.approx(jiwer.wer(list(refs.values()), list(hyps.values())))
    # positive control: one changed word is seen
    hyps["0"] += " NEVERSAID"
    assert score(_transcripts(refs), _transcripts(hyps), "raw").total("words").rate > pooled


def test_known_counts_and_listing() -> None:
    refs = _transcripts(
        {"u1": "THE CAT SAT DOWN", "u2": "A DOG", "u3": ""}, {"u1": "s1", "u2": "s2", "u3": "s2"}
    )
    hyps = _transcripts({"u1": "the cat sits", "u2": "A BIG DOG", "u3": "OH"})
    scored = score(refs, hyps)
    assert scored.total("words") == Counts(sub=1, deleted=1, ins=2, ref=6)
    metric = scored.metric("words")
    assert metric.value == pytest.approx(100 * 4 / 6)
    assert metric.low is not None
    assert metric.high is not None
    assert metric.low <= metric.value <= metric.high
    text = listing(scored)
    assert "WER 66.67 %" in text
    assert "over speakers" in text
    assert "normaliser 'upper'" in text
    assert text.index("u1  2 errors in 4 words") < text.index("u2  1 errors in 2 words")
    assert "HYP: THE CAT SITS *" in text


def test_missing_hypotheses_count_and_strange_ones_are_refused() -> None:
    refs = _transcripts({"u1": "A B", "u2": "C"})
    scored = score(refs, _transcripts({"u1": "A B"}))
    assert scored.missing == ["u2"]
    assert scored.total("words") == Counts(deleted=1, ref=3)
    assert "1 utterances without a hypothesis" in summary(scored)
    with pytest.raises(SslbenchError, match="no reference, first 'u9'"):
        score(refs, _transcripts({"u9": "A"}))
    with pytest.raises(SslbenchError, match="all references are empty"):
        score(_transcripts({"u1": ""}), _transcripts({"u1": "A"})).metric("words")


def test_normalisers() -> None:
    refs, hyps = _transcripts({"u": "WELL, it's ﬁne"}), _transcripts({"u": "well it's FINE"})
    assert [score(refs, hyps, name).total("words").errors for name in ("raw", "upper", "words")] == [2, 1, 0]
    with pytest.raises(SslbenchError, match="did you mean upper"):
        score(refs, hyps, "uper")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("हिन्दी किताब।", ["हिन्दी", "किताब"]),  # vowel signs of combining class 0, some of them spacing
        ("ดินสอ ที่-นี่", ["ดินสอ", "ที่", "นี่"]),
        ("it’s 3½ — “naïve”", ["IT'S", "31", "2", "NAÏVE"]),
        ("I ❤️ you", ["I", "YOU"]),  # a heart and a mark that asks for its colour
    ],
)
def test_words_end_at_punctuation_only(text: str, found: list[str]) -> None:
    assert NORMALISERS["words"](text).split() == found


def test_the_same_transcripts_in_every_form(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"id": "u1", "text": "A B"}, {"id": "u2", "text": ""}])
    (tmp_path / "text").write_text("u1 A B\nu2\n")
    (tmp_path / "a.trn").write_text("A B (u1)\n(u2)\n")
    forms = [read_transcripts(tmp_path / name) for name in ("a.jsonl", "text", "a.trn")]
    assert forms[0] == forms[1] == forms[2] == _transcripts({"u1": "A B", "u2": ""})


def test_a_shar_folder_is_a_manifest(tones: Path, tmp_path: Path) -> None:
    write_shar(tones / "dev" / "dev.jsonl.gz", tmp_path / "dev", shard_cuts=3)
    found = read_transcripts(tmp_path / "dev")
    assert found == read_transcripts(tones / "dev" / "dev.jsonl.gz")
    assert found
    with pytest.raises(SslbenchError, match="is a folder; name one of its splits: dev"):
        read_transcripts(tones / "dev")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text", "u1 A\nu1 B\n", "comes twice"),
        ("a.trn", "A B\n", "expected 'words"),
        ("a.jsonl", '{"id": "u1"}\n', "needs the strings"),
        ("a.jsonl", "{broken\n", "not valid JSON"),
        ("text", "\n", "holds no transcripts"),
    ],
)
def test_bad_transcripts_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SslbenchError, match=message):
        read_transcripts(tmp_path / name)
    with pytest.raises(SslbenchError, match="no such file"):
        read_transcripts(tmp_path / "absent")


def test_equal_to_sclite() -> None:
    """Substitutions, deletions, insertions of 700 pairs, as NIST's sclite 2.10 counts them."""
    rows = read_json(Path(__file__).with_name("sclite_pairs.json"))
    assert len(rows) >= 500
    assert sum(not ref for ref, *_ in rows) > 0
    assert sum(not hyp for _, hyp, *_ in rows) > 20
    assert sum(not ref.isascii() for ref, *_ in rows) > 100
    assert sum(any(c.isdigit() for c in ref) for ref, *_ in rows) > 100
    plain = 0
    for ref, hyp, correct, sub, deleted, ins in rows:
        said, heard = ref.split(), hyp.split()
        assert count_edits_sclite(said, heard) == Counts(sub, deleted, ins, correct + sub + deleted), ref
        plain += count_edits(said, heard).errors == sub + deleted + ins
    assert plain < len(rows)  # positive control: equal costs give other totals on some of them


def test_breakdowns_add_up() -> None:
    pairs = [pair for pair in _pairs(60) if pair[0]]
    speakers = {str(i): f"s{i % 3}" for i in range(len(pairs))}
    scored = score(
        _transcripts({str(i): p[0] for i, p in enumerate(pairs)}, speakers),
        _transcripts({str(i): p[1] for i, p in enumerate(pairs)}),
        "raw",
    )
    for lines in (speaker_lines(scored), length_lines(scored)):
        found = [re.search(r"(\d+) / +(\d+)  \(", line) for line in lines[1:]]
        errors, words = (sum(int(match.group(n)) for match in found if match) for n in (1, 2))
        assert (errors, words) == (scored.total("words").errors, scored.total("words").ref)
    assert len(speaker_lines(scored)) == 4


def test_paired_test_of_two_systems() -> None:
    refs = _transcripts({str(i): "A B C D" for i in range(40)}, {str(i): f"s{i % 8}" for i in range(40)})
    good = score(refs, _transcripts({str(i): "A B C D" if i % 4 else "A B C" for i in range(40)}))
    bad = score(refs, _transcripts({str(i): "A B" for i in range(40)}))
    test = compare(good, bad)
    assert test.difference == pytest.approx(10 / 160 - 80 / 160)
    assert test.high < 0
    assert test.p_value < 0.01
    assert compare(good, good).p_value == 1.0
    assert "a - b: -43.75 points" in difference(test, "a", "b")
    with pytest.raises(SslbenchError, match="different references"):
        compare(good, score(_transcripts({"0": "A"}), _transcripts({"0": "A"})))


def test_one_seed_draws_every_interval() -> None:
    refs, hyps = (_transcripts({str(i): pair[side] for i, pair in enumerate(_pairs(60))}) for side in (0, 1))
    first, second = (score(refs, hyps, seed=seed) for seed in (0, 7))
    assert first.metric("words") != second.metric("words")
    for scored in (first, second):
        metric = scored.metric("words")
        assert f"[{metric.low:.2f}, {metric.high:.2f}]" in summary(scored)


def test_one_speaker_is_no_sample_of_speakers() -> None:
    refs = _transcripts({"u1": "A B", "u2": "C"}, {"u1": "s1", "u2": "s1"})
    scored = score(refs, _transcripts({"u1": "A B", "u2": ""}))
    assert "95 % intervals over utterances" in summary(scored)
    assert len(speaker_lines(scored)) == 2


def test_another_system_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ref.trn").write_text("A B (u1)\nC (u2)\n")
    (tmp_path / "ours.trn").write_text("A B (u1)\nC (u2)\n")
    (tmp_path / "theirs.trn").write_text("A B (u1)\n")
    score_files(tmp_path / "ref.trn", tmp_path / "ours.trn", ScoreOptions(against=tmp_path / "theirs.trn"))
    line = "theirs.trn: 1 utterances without a hypothesis count as empty, first u2"
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "ours.trn.errors.txt").read_text()


def test_the_unit_is_that_of_the_recognizer(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "ref.jsonl", [{"id": "u", "text": "s S t"}])
    write_jsonl(tmp_path / "hyp.jsonl", [{"id": "u", "text": "s s t"}])
    assert score_files(tmp_path / "ref.jsonl", tmp_path / "hyp.jsonl").total("words").errors == 0
    write_json(tmp_path / "hyp.meta.json", {"scored": "phone"})
    scored = score_files(tmp_path / "ref.jsonl", tmp_path / "hyp.jsonl")
    assert (scored.unit, scored.total("words").errors) == ("phone", 1)
    with pytest.raises(SslbenchError, match="was transcribed in phones, not in words"):
        score_files(tmp_path / "ref.jsonl", tmp_path / "hyp.jsonl", ScoreOptions(unit="word"))


def test_phones_have_one_rate() -> None:
    scored = score(_transcripts({"u": "AH B K"}), _transcripts({"u": "AH B"}), "raw", "phone")
    assert scored.rates() == {"per": "words"}
    assert summary(scored).startswith("PER 33.33 %")


def test_phones_are_compared_as_written_unless_asked_otherwise() -> None:
    said, heard = _transcripts({"u": "s S t"}), _transcripts({"u": "s s t"})  # in X-SAMPA, S is no s
    assert (score(said, heard, unit="phone").normaliser, score(said, heard).normaliser) == ("raw", "upper")
    assert score(said, heard, unit="phone").total("words").errors == 1
    assert score(said, heard, "upper", unit="phone").total("words").errors == 0


def test_kaldi_folders_know_their_speakers(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("u1\tA B\nu2 A  C \nu3\n")
    assert [(t.text, t.speaker) for t in read_transcripts(tmp_path / "text").values()] == [
        ("A B", None),
        ("A  C", None),
        ("", None),
    ]
    (tmp_path / "utt2spk").write_text("u1 s1\nu2\ts2\nu3 s1\n")
    assert [t.speaker for t in read_transcripts(tmp_path / "text").values()] == ["s1", "s2", "s1"]
