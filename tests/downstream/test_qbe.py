"""Query by example: matching, term-weighted values by hand, QUESST's layout, words cut out of a corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from probe_fakes import Spectral

from sslbench.downstream.qbe.data import quesst_home, read_quesst, read_truth, word_times
from sslbench.downstream.qbe.dtw import Documents, match, standardized
from sslbench.downstream.qbe.task import Task, read_answers
from sslbench.downstream.qbe.twv import BETA, Trials, max_twv
from sslbench.errors import SslbenchError
from sslbench.probe.rundir import RunDir
from sslbench.probe.runner import Named, ProbeSettings, run_task
from sslbench.probe.score import score_experiment
from sslbench.probe.task import Prediction


def test_a_query_is_found_where_it_is_hidden() -> None:
    rng = np.random.default_rng(0)
    query = rng.normal(size=(12, 8)).astype(np.float32)
    documents = [rng.normal(size=(n, 8)).astype(np.float32) for n in (40, 55, 31)]
    documents[1][20:44:2] = query  # at half the speed
    documents[1][21:45:2] = query
    scores = match(query, Documents.of(documents))
    assert scores.argmax() == 1
    in_blocks = Documents.of(documents, block_frames=60)
    assert [len(block.lens) for block in in_blocks.blocks] == [1, 1, 1]
    assert [len(b.lens) for b in Documents.of(documents, block_frames=115).blocks] == [2, 1]
    assert match(query, in_blocks) == pytest.approx(scores, abs=1e-6)
    assert match(query[:4], Documents.of(documents)).tolist() == [0, 0, 0]
    assert match(query, Documents.of([documents[0][:1]])).shape == (1,)  # a document of one frame


def test_scores_are_standardized_to_four_decimals() -> None:
    scores = standardized(np.array([1.0, 2.0, 4.0]))
    assert scores.mean() == pytest.approx(0, abs=1e-4)
    assert scores.tolist() == [round(value, 4) for value in scores.tolist()]
    assert standardized(np.zeros(3)).tolist() == [0, 0, 0]


def trials(scores: list[list[float]], targets: list[list[int]]) -> Trials:
    held = np.array(targets, dtype=np.bool_)
    return Trials(np.array(scores), held, held.sum(axis=1), held.shape[1], len(held))


def test_term_weighted_value_by_hand() -> None:
    assert pytest.approx(12.49) == BETA
    truth = [[1, 0, 0], [0, 1, 0]]
    assert max_twv(trials([[3.0, 0, 0], [0, 3, 0]], truth)) == 1.0
    # the second query is found only together with a false alarm, which costs more than it brings
    assert max_twv(trials([[3.0, 0, 0], [2, 1, 0]], truth)) == 0.5
    assert max_twv(trials([[1.0, 2, 0], [1, 0, 2]], truth)) == 0.0
    # equal scores are found together
    assert max_twv(trials([[3.0, 3, 0], [0, 3, 0]], truth)) == 0.0
    with pytest.raises(SslbenchError, match="in some documents but not in all"):
        max_twv(trials([[1.0, 1, 1]], [[1, 1, 1]]))
    # queries of the ground truth that nobody searched are missed, also where no searched one occurs
    assert max_twv(Trials(np.zeros((0, 3)), np.zeros((0, 3), bool), np.zeros(0, int), 9, 2)) == 0.0


def test_answers_must_be_about_the_same_documents() -> None:
    rows = [Prediction("q", "a 1.0 b 2.0", "b", "q"), Prediction("r", "a 1.0 c 2.0", "c", "r")]
    with pytest.raises(SslbenchError, match="r was not searched in the documents"):
        read_answers(rows)
    with pytest.raises(SslbenchError, match="s was not searched; run the task again"):
        read_answers([*rows[:1], Prediction("s", "", "b", "s")])
    # a query without any occurrence is left out
    found = read_answers([*rows[:1], Prediction("t", "a 9.0 b 9.0", "", "t")])
    assert found.scores.tolist() == [[1, 2]]
    assert found.targets.tolist() == [[False, True]]
    assert (found.documents, found.queries) == (2, 1)
    counted = read_answers([Prediction("q", "a 1.0 b 2.0", "7: b z", "q"), Prediction("s", "", "7: z", "s")])
    assert (counted.found.tolist(), counted.documents, counted.queries) == ([2], 7, 2)


def quesst(root: Path) -> Path:
    """Three documents and two queries per part at 8 kHz; each query is a piece of one document."""
    home = root / "quesst14Database"
    rng = np.random.default_rng(4)
    scoring, documents = home / "scoring", []
    for folder in (home / "Audio", scoring):
        folder.mkdir(parents=True)
    for number in range(3):
        wave = np.concatenate([np.sin(rng.uniform(0.1, 1.5) * np.arange(1600)) * 0.3 for _ in range(6)])
        documents.append(wave)
        soundfile.write(home / "Audio" / f"d{number}.wav", wave, 8_000)
    listed = [f"quesst14Database/Audio/d{number}.wav nnenglish" for number in range(3)]
    (scoring / "language_key_utterances.lst").write_text(
        "\n".join([*listed, "quesst14Database/Audio/x.wav czech"]) + "\n"
    )
    for part, name in (("dev", "dev"), ("eval", "eval")):
        (home / f"{name}_queries").mkdir()
        truth = scoring / f"groundtruth_quesst14_{part}"
        truth.mkdir()
        lines, terms, found = [], [], []
        for number in range(2):
            query = f"quesst14_{part}_{number:04d}"
            piece = documents[number][1600 : 1600 * 4]
            soundfile.write(home / f"{name}_queries" / f"{query}.wav", piece, 8_000)
            lines.append(f"quesst14Database/{name}_queries/{query}.wav nnenglish")
            terms.append(f'<term termid="{query}"/>')
            found.append(f"LEXEME d{number} 1 0.0 1.2 {query} lex <NA> <NA>")
        for number in (7, 8):
            query = f"quesst14_{part}_{number:04d}"
            lines.append(f"quesst14Database/{name}_queries/{query}.wav czech")
            terms.append(f'<term termid="{query}"/>')
            found += [f"LEXEME x 1 0.0 1.2 {word} lex <NA> <NA>" for word in (query, "NO_KEYWORD")]
        (scoring / f"language_key_{name}.lst").write_text("\n".join(lines) + "\n")
        (truth / f"quesst14_{part}.tlist.xml").write_text("<termlist>" + "\n".join(terms) + "</termlist>")
        (truth / f"quesst14_{part}.rttm").write_text("\n".join(found) + "\n")
        excerpts = "".join(
            f'<excerpt audio_filename="Audio/{name}.wav"/>' for name in ("d0", "d1", "d2", "x")
        )
        (truth / "quesst14.ecf.xml").write_text(f"<ecf>{excerpts}</ecf>")
    return root


def test_quesst_is_searched_and_its_queries_are_found(tmp_path: Path) -> None:
    root = quesst(tmp_path)
    settings = ProbeSettings(root, tmp_path / "exp", tmp_path / "results")
    row = run_task(Task("full"), Spectral, Named("fake", "fake"), settings)
    assert row.search is not None
    assert row.search.lr_grid == [1.0, 0.0]
    assert row.search.lr == 1.0  # the other layer is noise
    assert row.data.corpus == "quesst14"
    # the ground truth has two more queries in another language, which nobody searched
    assert row.metrics["mtwv"].value == pytest.approx(50)
    assert row.metrics["mtwv"].n == 4
    (scored,) = score_experiment(tmp_path / "exp")
    assert scored.metrics == row.metrics
    rows = RunDir(tmp_path / "exp" / "qbe").predictions(1.0, "test")
    assert [row.hyp for row in rows][2:] == ["", ""]
    task = Task("full")
    task.write_archive(rows, tmp_path / "list.xml")
    assert (tmp_path / "list.xml").read_text().count("<detected_termlist") == 2
    assert task.read_archive(rows, tmp_path / "list.xml") == [row.hyp for row in rows]


def test_what_quesst_lacks_is_named(tmp_path: Path) -> None:
    home = quesst_home(quesst(tmp_path))
    assert home is not None
    (home / "Audio" / "d1.wav").unlink()
    with pytest.raises(SslbenchError, match=r"1 files that it names are missing \(Audio/d1.wav\)"):
        read_quesst(home)
    (home / "scoring" / "groundtruth_quesst14_dev" / "quesst14.ecf.xml").unlink()
    with pytest.raises(SslbenchError, match=r"holds 0 .ecf.xml files; the ground truth has one"):
        read_truth(home / "scoring" / "groundtruth_quesst14_dev")
    (home / "scoring" / "language_key_dev.lst").unlink()
    with pytest.raises(SslbenchError, match=r"lacks scoring/language_key_dev.lst; unpack"):
        read_quesst(home)
    with pytest.raises(SslbenchError, match=r"needs QUESST 2014 .* or manifests"):
        Task("full").prepare(tmp_path / "nowhere")


def test_words_are_cut_out_of_the_embedded_corpus(mini_corpus: Path) -> None:
    parts = Task("smoke").prepare(mini_corpus)
    queries = [e for e in parts["test"] if e.target == "query"]
    documents = {e.id: e.cut for e in parts["test"] if e.target == "document"}
    assert len(queries) >= 5
    for query in queries:
        word = query.id.rsplit("-", 1)[1]
        source = query.id.removesuffix(f"-{word}")
        where = query.reference.split()
        assert where
        assert source not in where
        assert all(word in documents[name].supervisions[0].text.split() for name in where)
        assert 0.1 < query.cut.duration < 1.5
    lexicon = {"A": 1, "CAT": 3}
    cut = next(iter(documents.values()))
    assert word_times(cut, lexicon) == []  # unknown words
