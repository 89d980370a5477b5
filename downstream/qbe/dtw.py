"""Subsequence dynamic time warping of a query against many documents at once.

The step rule is dtw-python's `asymmetric` with open begin and end, normalized by the query's length, as in
s3prl/downstream/quesst14_dtw: a query frame follows 0, 1 or 2 document frames after the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SHORTEST_QUERY = 5
"""Queries of fewer frames match nothing (s3prl's rule)."""
BLOCK_FRAMES = 50_000
"""Of documents (padded to their longest) matched at once; a query of 5 s needs about 0.5 GB for them."""
_TINY = 1e-9


@dataclass(frozen=True)
class Block:
    """All frames of some documents, with unit length, and where each document lies."""

    frames: Array
    """(F, D)"""
    starts: NDArray[np.int64]
    lens: NDArray[np.int64]

    @staticmethod
    def of(clips: Sequence[Array]) -> Block:
        """Join (F, D) documents, each with at least one frame."""
        lens = np.array([len(clip) for clip in clips], dtype=np.int64)
        return Block(_unit(np.concatenate(list(clips))), np.cumsum(lens) - lens, lens)


@dataclass(frozen=True)
class Documents:
    """The documents to search, in order, in blocks."""

    blocks: tuple[Block, ...]

    @staticmethod
    def of(clips: Sequence[Array], block_frames: int = BLOCK_FRAMES) -> Documents:
        """Group (F, D) documents, each with at least one frame."""
        groups: list[list[Array]] = []
        longest = 0
        for clip in clips:
            longest = max(longest, len(clip))
            if not groups or longest * (len(groups[-1]) + 1) > block_frames:
                groups.append([])
                longest = len(clip)
            groups[-1].append(clip)
        return Documents(tuple(Block.of(group) for group in groups))


def normalized(clips: Sequence[Array]) -> list[Array]:
    """Every dimension with mean 0 and deviation 1 over all frames of all clips."""
    frames = sum(map(len, clips))
    mean = np.sum([clip.sum(axis=0, dtype=np.float64) for clip in clips], axis=0) / frames
    squares = np.sum([((clip - mean) ** 2).sum(axis=0) for clip in clips], axis=0)
    deviation = np.maximum(np.sqrt(squares / max(1, frames - 1)), _TINY)
    return [((clip - mean) / deviation).astype(np.float32) for clip in clips]


def match(query: Array, documents: Documents) -> NDArray[np.float64]:
    """How well a query occurs in each document: minus the best path's mean distance, at most 0.

    The distance of two frames is exp(1 − cosine) − 1, and each query frame's distances to one document
    are brought to [0, 1].

    Args:
        query: (Q, D) frames.
        documents: to search.
    """
    return np.concatenate([_match(query, block) for block in documents.blocks])


def _match(query: Array, documents: Block) -> NDArray[np.float64]:
    if len(query) < SHORTEST_QUERY:
        return np.zeros(len(documents.lens))
    distance = np.exp(1.0 - (_unit(query) @ documents.frames.T).astype(np.float64)) - 1.0  # (Q, F)
    low = np.minimum.reduceat(distance, documents.starts, axis=1)
    high = np.maximum.reduceat(distance, documents.starts, axis=1)
    low, span = (np.repeat(v, documents.lens, axis=1) for v in (low, np.maximum(high - low, _TINY)))
    distance = (distance - low) / span
    # (Q, documents, longest); frames past a document's end are out of reach
    valid = np.arange(int(documents.lens.max())) < documents.lens[:, None]
    padded = np.full((len(query), *valid.shape), np.inf)
    padded[:, valid] = distance
    cost = padded[0]
    for row in padded[1:]:
        before = cost.copy()
        before[:, 1:] = np.minimum(before[:, 1:], cost[:, :-1])
        before[:, 2:] = np.minimum(before[:, 2:], cost[:, :-2])
        cost = row + before
    best: NDArray[np.float64] = -cost.min(axis=1) / len(query)
    return best


def standardized(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """A query's scores over all documents with mean 0 and deviation 1, to 4 decimals (as submitted)."""
    shifted = (scores - scores.mean()) / max(float(scores.std()), _TINY)
    rounded: NDArray[np.float64] = shifted.round(4) + 0.0  # no -0.0
    return rounded


def _unit(frames: Array) -> Array:
    norms = np.linalg.norm(frames, axis=1, keepdims=True)
    unit: Array = (frames / np.maximum(norms, _TINY)).astype(np.float32)
    return unit
