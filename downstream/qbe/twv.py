"""Maximum term-weighted value of detection scores, as QUESST's own scorer counts it.

TWV(θ) = 1 − mean over queries of (P_miss + β · P_fa), where a trial is a pair of query and document.
QUESST 2014 (Anguera et al., MediaEval 2014, ceur-ws.org/Vol-1263 paper 35): P_target 0.0008, C_fa 1,
C_miss 100, so β = 12.49. Every document of the ground truth is a trial of every query that occurs in one
of them: what was not searched is not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sslbench.errors import SslbenchError

P_TARGET, C_FA, C_MISS = 0.0008, 1.0, 100.0
BETA = C_FA / C_MISS * (1 / P_TARGET - 1)


@dataclass(frozen=True)
class Trials:
    """The scores of what was searched, and how much the ground truth counts in all."""

    scores: NDArray[np.float64]
    """(Q, N) of every searched query that occurs against every searched document."""
    targets: NDArray[np.bool_]
    """(Q, N) whether the document holds the query."""
    found: NDArray[np.int64]
    """(Q,) documents that hold the query, searched or not."""
    documents: int
    """Documents of the ground truth, searched or not."""
    queries: int
    """Queries of the ground truth that occur, searched or not."""


def max_twv(trials: Trials, weights: NDArray[np.float64] | None = None) -> float:
    """The best value over one threshold for all queries; finding nothing gives 0.

    Args:
        trials: scores and truth.
        weights: (Q,) how often each searched query counts, for the bootstrap; None is once.

    Raises:
        SslbenchError: no query occurs in any document, or one occurs in all of them.
    """
    if not trials.queries or (trials.found >= trials.documents).any():
        raise SslbenchError(
            "qbe: term-weighted values need queries that occur in some documents but not in all; "
            "check the ground truth"
        )
    share = (np.ones(len(trials.found)) if weights is None else weights) / trials.queries
    gain = np.where(
        trials.targets,
        (share / trials.found)[:, None],
        (-BETA * share / (trials.documents - trials.found))[:, None],
    ).ravel()
    flat = trials.scores.ravel()
    order = np.argsort(-flat, kind="stable")
    value = np.cumsum(gain[order])
    ends = np.diff(flat[order], append=-np.inf) != 0  # equal scores are detected together
    return float(value[ends].max(initial=0.0))
