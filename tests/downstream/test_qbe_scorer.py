"""MTWV against QUESST's own scorer, on made-up searches in its files' layout.

The figures in `CASES` are the "maxTWV" of MediaEvalQUESST2015.jar by M. Penagarikano (sha256 10830feb…),
whose messages say MediaEvalQUESST2014, in Java 17, run as its `score-TWV-Cnxe.sh` does: prior 0.0741289, from
P_target 0.0008, C_fa 1 and C_miss 100, and -10 for trials without a score, as in s3prl's docs/superb.md. With
the environment variable QUESST_SCORER=FILE.jar these tests run it again (QUESST 2014 comes with its own).
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sslbench.downstream.qbe import twv
from sslbench.downstream.qbe.data import Search, read_truth
from sslbench.downstream.qbe.task import Task, read_answers, reference
from sslbench.probe.task import Prediction


@dataclass(frozen=True)
class Case:
    """A search of 14 queries, of which two occur nowhere, in 80 documents."""

    seed: int
    shift: float
    """How far the scores of documents that hold the query lie above the others'."""
    decimals: int
    queries: int
    """The first ones are searched."""
    documents: int
    official: float
    """The scorer's maxTWV."""


CASES = {
    "whole": Case(1, 1.5, 4, 14, 80, 0.19403401),
    "ties": Case(2, 1.5, 1, 14, 80, 0.20659932),
    "queries": Case(3, 2.0, 4, 6, 80, 0.3035088),
    "documents": Case(4, 2.0, 4, 14, 30, 0.06084656),
    "both": Case(5, 2.5, 2, 9, 45, 0.25606987),
    "nothing": Case(6, -2.0, 4, 14, 80, 5.440093e-15),
}


def rows_of(case: Case, folder: Path) -> list[Prediction]:
    """Write the ground truth into `folder`; the rows of a task that read it."""
    draw = random.Random(case.seed).random
    terms = [f"quesst14_eval_{number:04d}" for number in range(14)]
    names = [f"quesst14_{number:05d}" for number in range(80)]
    holds = {(t, d): draw() < 0.06 and t not in (terms[4], terms[13]) for t in terms for d in names}
    listed = "".join(f'<term termid="{t}"><termtext>{t}</termtext></term>\n' for t in terms)
    (folder / "q.tlist.xml").write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<termlist>\n{listed}</termlist>\n'
    )
    excerpts = "".join(f'<excerpt audio_filename="Audio/{d}.wav" channel="1" dur="5.0"/>\n' for d in names)
    (folder / "q.ecf.xml").write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n<ecf>\n{excerpts}</ecf>\n')
    lines = []
    for d in names:
        where = [t for t in terms if holds[t, d]] or ["NO_KEYWORD"]
        lines.append(f"SPEAKER {d} 1 0.000 5.000 <NA> <NA> SELF <NA>\n")
        lines += [
            f"LEXEME {d} 1 0.000 5.000 {word} lex SELF <NA>\n" for word in [*where, "quesst14_dev_0001"]
        ]
    (folder / "q.rttm").write_text("".join(lines))
    search = Search([], [], *read_truth(folder))
    rows = []
    for number, t in enumerate(terms):
        # triangular noise: Python promises the same random() in every version, and of nothing else
        scores = [draw() + draw() + draw() - 1.5 + case.shift * holds[t, d] / 2 for d in names]
        searched = list(zip(names, scores, strict=True))[: case.documents]
        answer = " ".join(f"{d} {s:.{case.decimals}f}" for d, s in searched)
        if number < case.queries:
            rows.append(Prediction(t, answer, reference(search, t), t))
        elif t in search.found:
            rows.append(Prediction(t, "", reference(search, t), t))
    return rows


def scorer(jar: str, folder: Path) -> float:
    files = ["q.stdlist.xml", "q.rttm", "q.ecf.xml", "q.tlist.xml"]
    command = ["java", "-jar", str(Path(jar).resolve()), *files, "0.0741289", "-10"]
    printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    found = re.search(r"maxTWV: (\S+)", printed)
    assert found, printed
    return float(found[1])


@pytest.mark.parametrize("name", CASES)
def test_the_value_is_quessts_own(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    rows = rows_of(case, tmp_path)
    task = Task("full")
    task.write_archive(rows, tmp_path / "q.stdlist.xml")
    if jar := os.environ.get("QUESST_SCORER"):
        assert scorer(jar, tmp_path) == pytest.approx(case.official, abs=1e-7)
    found = task.metrics(rows)["mtwv"]
    assert found.value == pytest.approx(100 * case.official, abs=5e-5)
    assert found.n == 12
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high


def test_other_rules_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["both"]
    trials = read_answers(rows_of(case, tmp_path))
    assert twv.max_twv(trials) == pytest.approx(case.official, abs=5e-7)
    others = {
        "only what was searched": replace(trials, documents=45, queries=len(trials.found)),
        "searched documents": replace(trials, documents=45),
        "searched queries": replace(trials, queries=len(trials.found)),
        "found documents": replace(trials, found=trials.targets.sum(axis=1).clip(1)),
        "every query of the list": replace(trials, queries=14),
    }
    for rule, changed in others.items():
        assert abs(twv.max_twv(changed) - case.official) > 1e-3, rule
    tied = read_answers(rows_of(CASES["ties"], tmp_path))
    split = replace(tied, scores=tied.scores + 1e-6 * tied.targets)
    assert twv.max_twv(split) > CASES["ties"].official + 1e-3
    for beta in (999.9, 12.5):  # NIST's STD 2006; 1 / (100 * 0.0008)
        monkeypatch.setattr(twv, "BETA", beta)
        assert abs(twv.max_twv(trials) - case.official) > 2e-6, beta
