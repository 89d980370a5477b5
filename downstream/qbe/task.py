"""Query by example (QbE): spoken queries are looked for in spoken documents, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslbench.downstream.qbe import archive
from sslbench.downstream.qbe.data import Search, quesst_home, read_manifests, read_quesst
from sslbench.downstream.qbe.dtw import Documents, match, normalized, standardized
from sslbench.downstream.qbe.twv import Trials, max_twv
from sslbench.errors import SslbenchError
from sslbench.probe.store import Store
from sslbench.probe.task import Example, Parts, Prediction, UntrainedTask
from sslbench.progress import track
from sslbench.report.schema import Metric

DRAWS = 200
GAIN = 10 ** (-3 / 20)  # s3prl reads with sox's `gain -3`


class Task(UntrainedTask):
    """QbE as SUPERB defines it: DTW on each layer, the layer chosen on dev."""

    name = "qbe"
    headline = "mtwv"
    higher_is_better = True
    searched = "layer"
    config_path = Path(__file__).with_name("config.yaml")

    def prepare(self, root: Path) -> Parts:
        home = quesst_home(root)
        searches = read_quesst(home) if home else read_manifests(root, self.settings, self.tier)
        self._unsearched = {part: _unsearched(search) for part, search in searches.items()}
        parts: Parts = {part: _examples(search) for part, search in searches.items()}
        return {"train": [], **parts}

    def waveform(self, wav: torch.Tensor) -> torch.Tensor:
        return wav * GAIN

    def choices(self, layers: int) -> list[float]:
        return [float(layer) for layer in range(layers)]

    def layer_shares(self, layers: int, choice: float) -> list[float]:
        return [float(layer == choice) for layer in range(layers)]

    def answer(
        self, part: str, examples: Sequence[Example], store: Store, numbers: Sequence[int], choice: float
    ) -> list[Prediction]:
        features = [store.clip(number)[int(choice)].numpy() for number in numbers]
        clips = dict(zip([e.id for e in examples], normalized(features), strict=True))
        queries = [e for e in examples if e.target == "query"]
        names = [e.id for e in examples if e.target == "document"]
        if not queries or not names:
            raise SslbenchError(f"qbe: no readable {'document' if queries else 'query'} in {part}")
        documents = Documents.of([clips[name] for name in names])
        rows = []
        for query in track(queries, f"qbe: layer {choice:g}, {part} queries", len(queries)):
            scores = standardized(match(clips[query.id], documents))
            answer = " ".join(f"{name} {score:.4f}" for name, score in zip(names, scores, strict=True))
            rows.append(Prediction(query.id, answer, query.reference, query.id))
        return rows + self._unsearched[part]

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, Metric]:
        """MTWV over all queries and documents of the ground truth; those not searched are missed."""
        trials = read_answers(predictions)
        value = max_twv(trials)
        low, high = _interval(trials, value)
        found = Metric(
            value=100 * value,
            unit="%",
            higher_is_better=True,
            low=100 * low,
            high=100 * high,
            n=trials.queries,
        )
        return {"mtwv": found}

    def write_archive(self, rows: Sequence[Prediction], path: Path) -> None:
        """The leaderboard's file. See `sslbench.downstream.qbe.archive`."""
        archive.write(rows, path)

    def read_archive(self, rows: Sequence[Prediction], path: Path) -> list[str]:
        """The answers of such a file."""
        return archive.read(rows, path)

    def facts(self) -> Mapping[str, Any]:
        return {"gain": GAIN}


def _unsearched(search: Search) -> list[Prediction]:
    """The queries of the ground truth that are not searched, as rows without an answer."""
    others = sorted(search.found.keys() - {cut.id for cut in search.queries})
    return [Prediction(name, "", reference(search, name), name) for name in others]


def _examples(search: Search) -> list[Example]:
    made = [Example(cut, "query", reference(search, cut.id), cut.id) for cut in search.queries]
    return made + [Example(cut, "document", "", cut.id) for cut in search.documents]


def reference(search: Search, query: str) -> str:
    """The documents that hold a query, after `NUMBER:` where the truth counts more than those searched."""
    where = " ".join(sorted(search.found.get(query, ())))
    return where if search.counted is None else f"{search.counted}: {where}"


def read_answers(predictions: Sequence[Prediction]) -> Trials:
    """The trials of prediction rows `DOCUMENT SCORE DOCUMENT SCORE …`, empty where a query was not searched.

    Raises:
        SslbenchError: rows that are not about the same documents, or that do not tell how many there are.
    """
    names: list[str] = []
    scores, targets, found = [], [], []
    counted, unsearched = None, 0
    for row in predictions:
        size, colon, where = row.ref.partition(":")
        counted, where = (int(size), where) if colon and size.isdigit() else (None, row.ref)
        words = row.hyp.split()
        if not words:
            if counted is None:
                raise SslbenchError(f"qbe: {row.id} was not searched; run the task again in a new folder")
            unsearched += 1
            continue
        if names and words[::2] != names:
            raise SslbenchError(f"qbe: {row.id} was not searched in the documents of the query before it")
        names = words[::2]
        truth = set(where.split())
        held = [name in truth for name in names]
        if counted is None:
            truth &= set(names)
        if truth:
            scores.append([float(word) for word in words[1::2]])
            targets.append(held)
            found.append(len(truth))
    return Trials(
        np.array(scores).reshape(len(found), len(names)),
        np.array(targets, dtype=np.bool_).reshape(len(found), len(names)),
        np.array(found, dtype=np.int64),
        counted or len(names),
        len(found) + unsearched,
    )


def _interval(trials: Trials, value: float) -> tuple[float, float]:
    """Percentile bootstrap over queries; each draw has its own best threshold."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(0, trials.queries, trials.queries), minlength=trials.queries)
        drawn.append(max_twv(trials, times[: len(trials.found)].astype(np.float64)))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return min(float(low), value), max(float(high), value)
