"""Maximum term-weighted value of detection scores.

TWV(θ) = 1 − mean over queries of (P_miss + β · P_fa), where a trial is a pair of query and document.
QUESST 2014 (Anguera et al., MediaEval 2014, ceur-ws.org/Vol-1263 paper 35): P_target 0.0008, C_fa 1,
C_miss 100, so β = 12.49.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sslbench.errors import SslbenchError

P_TARGET, C_FA, C_MISS = 0.0008, 1.0, 100.0
BETA = C_FA / C_MISS * (1 / P_TARGET - 1)


def max_twv(
    scores: NDArray[np.float64], targets: NDArray[np.bool_], weights: NDArray[np.float64] | None = None
) -> tuple[float, float]:
    """The best value over one threshold for all queries, and that threshold.

    Args:
        scores: (Q, N) of every query against every document.
        targets: (Q, N) whether the document holds the query.
        weights: (Q,) how often each query counts, for the bootstrap; None is once.

    Returns:
        (value, threshold): detections are scores ≥ threshold. Finding nothing gives 0 at infinity.

    Raises:
        SslbenchError: no query occurs in any document, or one occurs in all of them.
    """
    found = targets.sum(axis=1)
    kept = found > 0
    if not kept.any() or (found == targets.shape[1]).any():
        raise SslbenchError(
            "qbe: term-weighted values need queries that occur in some documents but not in all; "
            "check the ground truth"
        )
    scores, targets, found = scores[kept], targets[kept], found[kept]
    share = np.ones(len(found)) if weights is None else weights[kept].astype(np.float64)
    if share.sum() <= 0:
        return 0.0, float("inf")
    share = share / share.sum()
    gain = np.where(
        targets, (share / found)[:, None], (-BETA * share / (targets.shape[1] - found))[:, None]
    ).ravel()
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")
    value = np.cumsum(gain[order])
    ends = np.append(np.diff(flat[order]) != 0, True)  # equal scores are detected together
    best = int(np.argmax(np.where(ends, value, -np.inf)))
    return (float(value[best]), float(flat[order][best])) if value[best] > 0 else (0.0, float("inf"))
