"""The leaderboard's archive: prediction files in its layout, checked, and scored again from there.

Layout: `predict/<task>_public/…` as s3prl's `submit/submit.py` copies it, zipped to `predict.zip`; the
tasks' places in it are in `superb.yaml` beside them. Any subset of tasks may be submitted.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from sslbench.errors import SslbenchError
from sslbench.io import atomic_path, write_text
from sslbench.probe.rundir import RUN, RunDir
from sslbench.probe.score import chosen_on_test, over_folds, score_run
from sslbench.probe.scores import Archive, Board, BoardTask
from sslbench.probe.task import Prediction, ProbeTask, load_task
from sslbench.report.schema import Metric

ROOT, ZIP = "predict", "predict.zip"


@runtime_checkable
class OwnFormat(Protocol):
    """A task whose archive is not `id answer` lines."""

    def write_archive(self, rows: Sequence[Prediction], path: Path) -> None:
        """Write the answers to a file or folder."""

    def read_archive(self, rows: Sequence[Prediction], path: Path) -> list[str]:
        """The answers (`hyp`) for these rows again. Raises `SslbenchError` when one is missing."""


@dataclass(frozen=True)
class Entry:
    """One task of an experiment and where its predictions go."""

    name: str
    """The leaderboard's name of it."""
    task: ProbeTask
    run: RunDir
    board: BoardTask

    @property
    def archive(self) -> Archive:
        """Its place in the archive."""
        return self.board.archive

    def folds(self) -> list[str]:
        """Names of its folds."""
        found: list[str] = self.run.run()["facts"].get("folds", [""])
        return found

    def rows(self, chosen: float) -> Iterator[tuple[str, list[Prediction]]]:
        """(folder, rows) per fold."""
        for number, fold in enumerate(self.folds(), 1):
            folder = self.archive.folder.format(fold=number)
            yield folder, self.run.predictions(chosen, self.archive.rows, fold)


def entries(board: Board, exp: Path) -> list[Entry]:
    """The leaderboard's tasks that an experiment folder holds, in the board's order.

    Raises:
        SslbenchError: it holds none.
    """
    found = []
    for name, wanted in board.tasks.items():
        for folder in (exp / evaluation for evaluation in wanted.evaluations):
            if (folder / RUN).is_file():
                run = RunDir(folder)
                facts = run.run()["facts"]
                found.append(Entry(name, load_task(facts["task"], facts["tier"]), run, wanted))
    if not found:
        raise SslbenchError(f"{exp}: holds no task of the leaderboard; make one with 'sslbench superb run'")
    return found


def chosen_point(entry: Entry) -> float:
    """The grid point whose predictions are submitted: the protocol's, on dev unless it selects on test."""
    grid: list[float] = entry.run.run()["facts"]["lr_grid"]
    if entry.archive.rows == "test":
        return score_run(entry.run, entry.task, grid).search.lr
    return chosen_on_test(entry.run, entry.task, grid, entry.folds())[0]


def write_archive(board: Board, exp: Path, out: Path) -> list[Path]:
    """Write `out/predict/` and `out/predict.zip` from an experiment folder.

    Returns:
        The files of the archive, relative to `out`.

    Raises:
        SslbenchError: nothing to submit, or `out/predict` holds other tasks from before.
    """
    if (out / ROOT).is_dir() and any((out / ROOT).iterdir()):
        raise SslbenchError(f"{out / ROOT}: holds an archive already; use another --out, or remove it")
    for entry in entries(board, exp):
        for folder, rows in entry.rows(chosen_point(entry)):
            path = out / ROOT / folder / entry.archive.file
            if isinstance(entry.task, OwnFormat):
                entry.task.write_archive(rows, path)
            else:
                write_text(path, "".join(_line(entry.archive, row) for row in rows))
    files = sorted(path for path in (out / ROOT).rglob("*") if path.is_file())
    with atomic_path(out / ZIP) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            # a fixed date: the same predictions give the same archive
            member = zipfile.ZipInfo(str(path.relative_to(out)), (1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(member, path.read_bytes())
    return [path.relative_to(out) for path in files]


def official_id(archive: Archive, name: str) -> str:
    """The leaderboard's name of a row."""
    return re.sub(archive.ids[0], archive.ids[1], name) if archive.ids else name


def _line(archive: Archive, row: Prediction) -> str:
    name = official_id(archive, row.id)
    if archive.file.endswith(".csv"):
        return ",".join([name, *row.hyp.split(", ")]) + "\n"
    return f"{name} {row.hyp}\n"


def read_answers(entry: Entry, rows: Sequence[Prediction], path: Path) -> list[Prediction]:
    """The rows with the answers of an archive, which must be about the same clips in the same order.

    Raises:
        SslbenchError: the file is missing, or a line is about another clip, naming both.
    """
    if not path.exists():
        raise SslbenchError(f"{path}: is missing from the archive")
    if isinstance(entry.task, OwnFormat):
        answers = entry.task.read_archive(rows, path)
        return [replace(row, hyp=answer) for row, answer in zip(rows, answers, strict=True)]
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    if len(lines) != len(rows):
        raise SslbenchError(f"{path}: has {len(lines)} lines for {len(rows)} clips")
    comma = entry.archive.file.endswith(".csv")
    found = []
    for number, (row, line) in enumerate(zip(rows, lines, strict=True), 1):
        name, _, answer = line.partition("," if comma else " ")
        if name != official_id(entry.archive, row.id):
            raise SslbenchError(f"{path}:{number}: is about {name}, not {row.id}")
        found.append(replace(row, hyp=answer.replace(",", ", ") if comma else answer))
    return found


def rescore(board: Board, exp: Path, out: Path) -> dict[str, tuple[dict[str, Metric], dict[str, Metric]]]:
    """Each task's metrics from the experiment, and from the archive's answers with the same references.

    Where the protocol selects on test, the archive holds that selection: it is compared by its own name.

    Raises:
        SslbenchError: the archive lacks a file, or does not fit the experiment.
    """
    both = {}
    for entry in entries(board, exp):
        scored = score_run(entry.run, entry.task, entry.run.run()["facts"]["lr_grid"])
        chosen = chosen_point(entry)
        per_fold = []
        for fold, (folder, rows) in zip(entry.folds(), entry.rows(chosen), strict=True):
            answers = read_answers(entry, rows, out / ROOT / folder / entry.archive.file)
            if entry.archive.rows == "test":
                dev = entry.run.predictions(chosen, "dev", fold)
                per_fold.append(entry.task.final_metrics(dev, answers))
            else:
                own = entry.task.metrics(answers)[entry.task.headline]
                per_fold.append({f"{entry.task.headline}_{entry.archive.rows}": own})
        again = over_folds(per_fold)
        both[entry.name] = ({name: scored.metrics[name] for name in again}, again)
    return both


def unlike(before: dict[str, Metric], after: dict[str, Metric], tolerance: float = 1e-6) -> list[str]:
    """The metrics whose values differ."""
    return [name for name in before if abs(before[name].value - after[name].value) > tolerance]


def unofficial(board: Board, exp: Path) -> list[str]:
    """What of an experiment is no official run, as far as its folder tells: tier, folds, number of rows."""
    problems = []
    for entry in entries(board, exp):
        official, folds, chosen = entry.board.official, entry.folds(), chosen_point(entry)
        n = sum(len(rows) for _, rows in entry.rows(chosen))
        if entry.task.tier != "full":
            problems.append(f"{entry.name} is of tier {entry.task.tier}, not full")
        if len(folds) != entry.archive.folds:
            problems.append(f"{entry.name} has {len(folds)} of {entry.archive.folds} folds")
        if official.items not in (None, n):
            problems.append(f"{entry.name} covers {n} of the {official.items} clips of its test set")
    return problems


def check_archive(board: Board, out: Path) -> list[str]:
    """What an archive lacks for the paper's ten tasks, in words; empty when it is whole."""
    problems = []
    for name in board.form("paper-10"):
        archive = board.tasks[name].archive
        folders = [archive.folder.format(fold=number) for number in range(1, archive.folds + 1)]
        absent = [folder for folder in folders if not (out / ROOT / folder / archive.file).exists()]
        if len(absent) == len(folders):
            problems.append(f"{name} is missing")
        elif absent:
            problems.append(f"{name} lacks {', '.join(absent)}; without all folds it is not scored")
    return problems
