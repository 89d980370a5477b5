"""Diarization's part of a submission: one HDF5 file of probabilities per recording, and the frame shift."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sslbench.downstream.sd.answer import Answer
from sslbench.errors import SslbenchError
from sslbench.io import atomic_path, write_text
from sslbench.probe.task import Prediction

DATASET, SHIFT = "T_hat", "frame_shift"  # s3prl/downstream/diarization/expert.py
_EDGE = 1e-7


def write(rows: Sequence[Prediction], folder: Path) -> None:
    """Write `folder/<recording>.h5`, and `frame_shift` two folders up, as the leaderboard expects it.

    Without the frame shift its scorer assumes 160 samples (s3prl issue 254).
    """
    h5py = _h5py()
    answers = {row.id: Answer.of(row.hyp) for row in rows}
    for name, answer in answers.items():
        with atomic_path(folder / f"{name}.h5") as temporary, h5py.File(temporary, "w") as file:
            file.create_dataset(DATASET, data=answer.probabilities(), track_times=False)
    strides = {answer.stride for answer in answers.values()}
    if len(strides) != 1:
        raise SslbenchError(f"sd: answers of frame shifts {sorted(strides)} cannot be one submission")
    write_text(folder.parent.parent / SHIFT, f"{strides.pop()}\n")


def read(rows: Sequence[Prediction], folder: Path) -> list[str]:
    """The answers for these recordings. Raises `SslbenchError` when a file or the frame shift is missing."""
    h5py, shift = _h5py(), folder.parent.parent / SHIFT
    if not shift.is_file():
        raise SslbenchError(f"{shift}: is missing; without it the leaderboard assumes 160 samples")
    stride = int(shift.read_text(encoding="utf-8"))
    answers = []
    for row in rows:
        path = folder / f"{row.id}.h5"
        if not path.is_file():
            raise SslbenchError(f"{path}: is missing from the archive")
        with h5py.File(path, "r") as file:
            shares = np.clip(np.asarray(file[DATASET], dtype=np.float64), _EDGE, 1 - _EDGE)
        answers.append(Answer(np.log(shares / (1 - shares)).astype(np.float32), stride).text())
    return answers


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise SslbenchError(
            "sd: the leaderboard's format is HDF5, which needs h5py; pip install 'sslbench[superb]'"
        ) from None
    return h5py
