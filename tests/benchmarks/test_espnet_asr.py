"""The ESPnet comparison says nothing about speed where the two decoders did different work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_no_ratio_where_most_texts_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "espnet_asr", raising=False)
    import espnet_asr

    same = dict.fromkeys(
        ("espnet_train_s_per_h", "our_train_s_per_h", "train_ratio", "espnet_collect_stats_s"), 1.0
    )
    same |= dict.fromkeys(
        ("espnet_characters", "greedy_characters", "spoken_characters", "threads", "batch"), 9
    )
    speeds = {"espnet_audio_s_per_s": 2.0, "greedy_same_weights_audio_s_per_s": 84.0}
    facts = {
        **same, **speeds, "sslbench_decode_audio_s_per_s": 62.0, "decode_ratio_same_weights": 42.0,
        "searches_audio_s_per_s": {}, "utterances": 20,
    }  # fmt: skip
    agreed = espnet_asr.table({**facts, "same_texts": 10})
    assert "| 2.0 | 84.0 | 42.0 |" in agreed
    assert "| 2.0 | 62.0 | 31.0 |" in agreed
    differed = espnet_asr.table({**facts, "same_texts": 9})
    assert differed.count("none: only 9 of 20 texts agree") == 2
    assert "| 2.0 | 84.0 |" in differed
