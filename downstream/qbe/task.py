"""Query by example (QbE): spoken queries are looked for in spoken documents, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sslbench.downstream.qbe import archive
from sslbench.downstream.qbe.data import Search, quesst_home, read_manifests, read_quesst
from sslbench.downstream.qbe.dtw import Documents, match, normalized, standardized
from sslbench.downstream.qbe.twv import max_twv
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
        """MTWV of the searched queries, and of all in the ground truth, where the others are missed."""
        scores, targets = read_answers(predictions)
        value, _ = max_twv(scores, targets)
        metrics = {"mtwv": _metric(value, _interval(scores, targets, value), len(scores))}
        unsearched = sum(not row.hyp for row in predictions)
        if unsearched:
            # a missed query adds nothing to the sum, and one without any occurrence is not counted
            counted = int(targets.any(axis=1).sum())
            share = counted / (counted + unsearched)
            low, high = _interval(scores, targets, value)
            ends = (share * low, share * high)
            metrics["mtwv_all_queries"] = _metric(share * value, ends, len(predictions))
        return metrics

    def write_archive(self, rows: Sequence[Prediction], path: Path) -> None:
        """The leaderboard's file. See `sslbench.downstream.qbe.archive`."""
        archive.write(rows, path)

    def read_archive(self, rows: Sequence[Prediction], path: Path) -> list[str]:
        """The answers of such a file."""
        return archive.read(rows, path)

    def facts(self) -> Mapping[str, Any]:
        return {"gain": GAIN}


def _metric(value: float, ends: tuple[float, float], n: int) -> Metric:
    low, high = (100 * end for end in ends)
    return Metric(value=100 * value, unit="%", higher_is_better=True, low=low, high=high, n=n)


def _unsearched(search: Search) -> list[Prediction]:
    """The queries of the ground truth that are not searched, as rows without an answer."""
    searched = {cut.id for cut in search.queries}
    others = {name: where for name, where in search.found.items() if name not in searched}
    return [Prediction(name, "", " ".join(sorted(others[name])), name) for name in sorted(others)]


def _examples(search: Search) -> list[Example]:
    held = {cut.id for cut in search.documents}
    made = []
    for cut in search.queries:
        where = sorted(search.found.get(cut.id, set()) & held)
        made.append(Example(cut, "query", " ".join(where), cut.id))
    return made + [Example(cut, "document", "", cut.id) for cut in search.documents]


def read_answers(
    predictions: Sequence[Prediction],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(Q, N) scores and truth from prediction rows `DOCUMENT SCORE DOCUMENT SCORE …`, where searched.

    Raises:
        SslbenchError: rows that are not about the same documents.
    """
    names: list[str] = []
    scores, targets = [], []
    for row in predictions:
        words = row.hyp.split()
        if not words:
            continue
        if names and words[::2] != names:
            raise SslbenchError(f"qbe: {row.id} was not searched in the documents of the query before it")
        names = words[::2]
        scores.append([float(word) for word in words[1::2]])
        truth = set(row.ref.split())
        targets.append([name in truth for name in names])
    return np.array(scores), np.array(targets, dtype=np.bool_)


def _interval(scores: NDArray[np.float64], targets: NDArray[np.bool_], value: float) -> tuple[float, float]:
    """Percentile bootstrap over queries; each draw has its own best threshold."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        weights = np.bincount(rng.integers(0, len(scores), len(scores)), minlength=len(scores))
        drawn.append(max_twv(scores, targets, weights.astype(np.float64))[0])
    low, high = np.quantile(drawn, (0.025, 0.975))
    return min(float(low), value), max(float(high), value)
