"""The phone times are true: a linear probe on MFCC finds phones, and finds fewer when they are shifted."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet

from sslbench.data.manifests import open_manifest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="needs the synthesizer: pip install 'sslbench[mini]'",
)
HOP, CONTEXT = 160, 3


def features(audio: torch.Tensor) -> np.ndarray:
    """(F, 13·(2·CONTEXT+1)) MFCC at 10 ms hop with neighbours, normalized over the utterance."""
    import torchaudio

    mfcc = torchaudio.compliance.kaldi.mfcc(audio[None] * 32768, dither=0.0, num_ceps=13).numpy()  # (F, 13)
    mfcc = (mfcc - mfcc.mean(0)) / (mfcc.std(0) + 1e-3)
    padded = np.pad(mfcc, ((CONTEXT, CONTEXT), (0, 0)), "edge")
    return np.hstack([padded[k : k + len(mfcc)] for k in range(2 * CONTEXT + 1)])


def labels(cut: object, frames: int, shift_s: float) -> np.ndarray:
    """The phone at the middle of every 25 ms window, read `shift_s` seconds later."""
    items = cut.supervisions[0].alignment["phone"]  # type: ignore[attr-defined]
    starts = np.array([item.start for item in items])
    middles = 0.0125 + 0.01 * np.arange(frames) + shift_s
    return np.array([item.symbol for item in items])[
        np.searchsorted(starts, middles, side="right").clip(1) - 1
    ]


def accuracy(train: CutSet, test: CutSet, shift_s: float) -> float:
    """Frame accuracy on non-silent frames of unseen speakers; trained and tested with shifted labels."""
    from sklearn.linear_model import LogisticRegression

    def frames(cuts: CutSet) -> tuple[np.ndarray, np.ndarray]:
        pairs = []
        for cut in cuts:
            x = features(torch.from_numpy(cut.load_audio()[0]))
            y = labels(cut, len(x), shift_s)
            pairs.append((x[::2], y[::2]))
        return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])

    x, y = frames(train)
    probe = LogisticRegression(max_iter=25, C=0.1).fit(x, y)
    x, y = frames(test)
    return float(probe.score(x[y != "SIL"], y[y != "SIL"]))


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_a_linear_probe_finds_phones_and_misses_shifted_ones(mini_corpus: Path) -> None:
    train = open_manifest(mini_corpus / "train-clean-100.jsonl.gz").to_eager()
    test = open_manifest(mini_corpus / "test-clean.jsonl.gz").to_eager()
    in_place = accuracy(train, test, 0.0)
    assert 0.5 < in_place < 0.95  # measured 0.70; the commonest phone alone gives less than 0.15
    assert accuracy(train, test, 0.04) < in_place - 0.03
    assert accuracy(train, test, -0.04) < in_place - 0.03
