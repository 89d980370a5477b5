"""The verbs of `sslbench superb` that come after the runs: `score` and `submit`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslbench.report.schema import Metric, ResultRow, Search

SCORE_EXAMPLES = """examples:
  sslbench superb score exp/superb/fbank
  sslbench superb score exp/superb/fbank --results results
  sslbench superb score --results results --form public-10

Metrics are computed again from the prediction files below EXP. With --results, the rows of every system
there give superb_s (also as a row, for reports) and superb_r, where they are a complete set of official full
runs, and otherwise the reasons why they are not; per task, systems that the data cannot tell apart share a
rank.
"""
SUBMIT_EXAMPLES = """examples:
  sslbench superb submit exp/superb/fbank --out exp/superb/fbank/submission

Writes OUT/predict/ and OUT/predict.zip in the leaderboard's layout, computes the scores again from there,
and says what is missing for all ten tasks. Any subset may be submitted.
"""


def add_verbs(actions: Any) -> None:
    """Add the parsers of `score` and `submit`."""
    raw: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    score = actions.add_parser(
        "score", help="compute the scores again from the prediction files", epilog=SCORE_EXAMPLES, **raw
    )
    score.add_argument("exp", type=Path, nargs="?", help="the --out of 'superb run'")
    score.add_argument("--results", type=Path, help="folder of result rows: overall scores and ranks")
    score.add_argument("--form", default="paper-10", help="paper-10 or public-10")
    submit = actions.add_parser(
        "submit", help="write and check the leaderboard's archive", epilog=SUBMIT_EXAMPLES, **raw
    )
    submit.add_argument("exp", type=Path, help="the --out of 'superb run'")
    submit.add_argument("--out", type=Path, required=True, help="folder of the archive; must not hold one")


def score(args: argparse.Namespace) -> int:
    """Run `superb score`."""
    from sslbench.errors import SslbenchError
    from sslbench.probe.score import score_experiment

    if args.exp is None and args.results is None:
        raise SslbenchError("superb score: name an experiment folder, or --results, or both")
    if args.exp is not None:
        for scored in score_experiment(args.exp):
            print(metrics_line(scored.task, scored.metrics, scored.search))
            shares = " ".join(f"{share:.2f}" for share in scored.layer_shares)
            print(f"  layer weights {shares}")
    if args.results is not None:
        _overall(args.results, args.form)
    return 0


def _overall(results: Path, form: str) -> None:
    from sslbench.probe.overall import overall_row
    from sslbench.probe.scores import load_board, rows_by_task, superb_r, why_not_official
    from sslbench.report import store

    board = load_board()
    systems: dict[str, dict[str, ResultRow]] = {}
    for row in store.load_all(results):
        systems.setdefault(row.system, {})[row.evaluation] = row
    rows = {system: rows_by_task(board, own.values()) for system, own in systems.items()}
    rows = {system: own for system, own in rows.items() if own}
    _ranks(board, rows)
    values = {}
    for system, own in rows.items():
        reasons = why_not_official(board, form, own)
        if reasons:
            print(f"{system}: no SUPERB score ({form}): {'; '.join(reasons)}")
            continue
        values[system] = {
            task: {name: found.value for name, found in row.metrics.items()} for task, row in own.items()
        }
        row = overall_row(board, form, own)
        score = row.metrics["superb_s"]
        print(f"{system}: superb_s {score.value:.0f} [{score.low:.0f}, {score.high:.0f}] ({form})")
        print(f"wrote {store.save(row, results)}")
    if len(values) > 1:
        for system, beaten in sorted(superb_r(board, form, values).items(), key=lambda pair: -pair[1]):
            print(f"{system}: superb_r {beaten:.2f} ({form})")


def _ranks(board: Any, rows: dict[str, dict[str, ResultRow]]) -> None:
    """Per task: the systems of one tier and data from best to worst, ties joined by =."""
    from sslbench.probe.scores import tie_groups

    for task, wanted in board.tasks.items():
        alike: dict[str, dict[str, Metric]] = {}
        for system, own in rows.items():
            if task in own:
                row = own[task]
                # the leaderboard's own metric, where the row has it
                name = next((m for m in (*wanted.metrics, *row.metrics) if m in row.metrics), "")
                key = f"{name}; {row.tier}, {row.data.corpus}, {row.data.split}"
                alike.setdefault(key, {})[system] = row.metrics[name]
        for key, metrics in alike.items():
            if len(metrics) > 1:
                print(f"{task} ({key}): {' > '.join(' = '.join(g) for g in tie_groups(metrics))}")


def submit(args: argparse.Namespace) -> int:
    """Run `superb submit`. Returns 1 when the archive scores differently than the experiment."""
    from sslbench.probe.scores import load_board
    from sslbench.probe.submit import ZIP, check_archive, rescore, unlike, unofficial, write_archive

    board = load_board()
    files = write_archive(board, args.exp, args.out)
    print(f"wrote {args.out / ZIP} with {len(files)} files")
    wrong = False
    for name, (before, after) in rescore(board, args.exp, args.out).items():
        differing = unlike(before, after)
        print(metrics_line(name, after, None) + (f"; NOT EQUAL: {', '.join(differing)}" if differing else ""))
        wrong = wrong or bool(differing)
    for problem in unofficial(board, args.exp):
        print(f"not official: {problem}")
    for problem in check_archive(board, args.out):
        print(f"not complete: {problem}")
    return int(wrong)


def metrics_line(task: str, metrics: dict[str, Metric], search: Search | None) -> str:
    """One task's scores as a line."""
    words = []
    for name, metric in metrics.items():
        interval = f" [{metric.low:.2f}, {metric.high:.2f}]" if metric.low is not None else ""
        words.append(f"{name} {metric.value:.2f} {metric.unit}{interval}")
    if search is None:
        return f"{task}: {', '.join(words)}"
    over = "lr" if search.selected_on == "dev" else "choice"
    tried = ", ".join(f"{point:g}" for point in search.lr_grid)
    return f"{task}: {', '.join(words)}; {over} {search.lr:g} of {tried} on {search.selected_on}"
