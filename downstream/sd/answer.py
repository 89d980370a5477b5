"""A recording's answer as text: logits per frame, so that every threshold can be tried from files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.downstream.sd.der import Turn, turns_of
from sslbench.errors import SslbenchError

HALF_MAX = float(np.finfo(np.float16).max)
THRESHOLDS, MEDIANS = (0.3, 0.4, 0.5, 0.6, 0.7), (1, 11)  # s3prl/downstream/diarization/score.sh


@dataclass(frozen=True)
class Answer:
    """(F, S) logits, of half precision, at a stride in samples."""

    logits: NDArray[np.float32]
    stride: int

    def text(self) -> str:
        """`STRIDE SPEAKERS BASE64`; logits beyond half precision become its largest, as infinite ones would
        leave the order of speakers to chance."""
        raw = base64.b64encode(self.logits.clip(-HALF_MAX, HALF_MAX).astype("<f2").tobytes()).decode()
        return f"{self.stride} {self.logits.shape[1]} {raw}"

    @staticmethod
    def of(text: str) -> Answer:
        """Read `text` again. Raises `SslbenchError` when it is none."""
        try:
            stride, speakers, raw = text.split(" ")
            logits = np.frombuffer(base64.b64decode(raw, validate=True), dtype="<f2")
            return Answer(logits.reshape(-1, int(speakers)).astype(np.float32), int(stride))
        except ValueError as error:
            raise SslbenchError(f"sd: is no diarization answer ({error})") from None

    def of_length(self, frames: int) -> Answer:
        """Cut to a number of frames, or continued with the last one."""
        missing = max(0, frames - len(self.logits))
        return Answer(np.pad(self.logits[:frames], ((0, missing), (0, 0)), mode="edge"), self.stride)

    def probabilities(self) -> NDArray[np.float32]:
        """(F, S) in [0, 1]."""
        shares: NDArray[np.float32] = (1 / (1 + np.exp(-self.logits.astype(np.float64)))).astype(np.float32)
        return shares

    def turns(self, threshold: float = 0.5, median: int = 1) -> list[Turn]:
        """Turns in seconds, to hundredths as s3prl's make_rttm.py writes them."""
        active = self.probabilities() > threshold
        found = turns_of(active, self.stride / SAMPLE_RATE_HZ, median)
        rounded = [(round(t.start, 2), round(t.end - t.start, 2), t.speaker) for t in found]
        return [Turn(start, start + seconds, speaker) for start, seconds, speaker in rounded]


def turns_text(turns: Sequence[Turn]) -> str:
    """`SPEAKER START END;…` in order of time."""
    ordered = sorted(turns, key=lambda turn: (turn.start, turn.end, turn.speaker))
    return ";".join(f"{turn.speaker} {turn.start:.6g} {turn.end:.6g}" for turn in ordered)


def turns_from(text: str) -> list[Turn]:
    """Read `turns_text` again."""
    rows = [part.rsplit(" ", 2) for part in text.split(";") if part]
    return [Turn(float(start), float(end), speaker) for speaker, start, end in rows]
