"""The ESPnet comparison says nothing about speed where it is bought with errors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_no_ratio_where_ours_makes_more_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "espnet_asr", raising=False)
    import espnet_asr

    same = dict.fromkeys(
        ("espnet_train_s_per_h", "our_train_s_per_h", "train_ratio", "espnet_collect_stats_s"), 1.0
    )
    counts = ("threads", "batch", "same_texts", "espnet_batches_per_pass", "our_batches_per_pass")
    same |= dict.fromkeys(counts, 9)
    speeds = {"espnet_audio_s_per_s": 2.0, "greedy_same_weights_audio_s_per_s": 84.0}
    facts = {
        **same, **speeds, "sslbench_decode_audio_s_per_s": 62.0, "decode_ratio_same_weights": 42.0,
        "searches_audio_s_per_s": {}, "utterances": 20,
    }  # fmt: skip
    as_good = espnet_asr.table({**facts, "espnet_wer": 80.0, "greedy_wer": 80.9})
    assert "| 2.0 | 84.0 | 42.0 |" in as_good
    assert "| 2.0 | 62.0 | 31.0 |" in as_good
    worse = espnet_asr.table({**facts, "espnet_wer": 80.0, "greedy_wer": 81.1})
    assert worse.count("none: more errors") == 2
    assert "| 2.0 | 84.0 |" in worse
    assert espnet_asr.wer(["A B", "C D"], ["A B", "C"]) == 25.0
