"""Speaker identification: its splits, s3prl's head and loss, the accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from probe_fakes import make_clip, make_corpus

from sslbench.downstream.sid.data import session_of, split_speakers
from sslbench.downstream.sid.task import Task
from sslbench.errors import SslbenchError
from sslbench.probe.task import Prediction


def test_sessions_are_kept_apart(tmp_path: Path) -> None:
    parts = Task("smoke").prepare(make_corpus(tmp_path, speakers=3, per_session=2))
    sessions = {part: {(e.speaker, session_of(e.cut)) for e in some} for part, some in parts.items()}
    assert not sessions["train"] & sessions["test"]
    assert not sessions["train"] & sessions["dev"]
    assert (
        {e.speaker for e in parts["train"]} == {e.speaker for e in parts["test"]} == {"spk0", "spk1", "spk2"}
    )
    assert {session for _, session in sessions["test"]} == {2}
    assert (
        sum(map(len, parts.values())) == len({e.id for some in parts.values() for e in some}) == 3 * 3 * 3 * 2
    )


def test_with_many_sessions_dev_has_its_own(tmp_path: Path) -> None:
    cuts = [make_clip(tmp_path / f"c{i}.wav", i, i % 2, session=i // 4) for i in range(20)]
    parts = split_speakers(cuts)
    assert {session_of(cut) for cut in parts["train"]} == {0, 1, 2}
    assert {session_of(cut) for cut in parts["dev"]} == {3}
    assert {session_of(cut) for cut in parts["test"]} == {4}


def test_without_sessions_an_utterance_keeps_its_part_when_the_corpus_grows(tmp_path: Path) -> None:
    cuts = [make_clip(tmp_path / f"c{i}.wav", i, i % 2) for i in range(80)]
    small, large = split_speakers(cuts[:60]), split_speakers(cuts)
    for part in ("train", "dev", "test"):
        assert {c.id for c in small[part]} <= {c.id for c in large[part]}
        assert small[part]
    assert len(large["train"]) > len(large["test"])


def test_a_corpus_of_one_speaker_is_refused(tmp_path: Path) -> None:
    cuts = [make_clip(tmp_path / f"c{i}.wav", i, 0) for i in range(40)]
    with pytest.raises(SslbenchError, match="two are needed"):
        split_speakers(cuts)
    cuts[0].supervisions[0].speaker = None
    with pytest.raises(SslbenchError, match="names no speaker"):
        split_speakers(cuts)


def test_full_takes_voxceleb1s_split_only(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, speakers=2, per_session=1)
    assert Task("short").prepare(corpus)["test"]
    with pytest.raises(SslbenchError, match=r"takes no other split than VoxCeleb1's.*--tier short"):
        Task("full").prepare(corpus)


def test_head_and_loss_equal_s3prls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("s3prl")
    module = pytest.importorskip("s3prl.downstream.voxceleb1.expert")

    class NoData:
        speaker_num = 5

        def __init__(self, *_: Any) -> None:
            pass

        @staticmethod
        def label2speaker(labels: list[int]) -> list[str]:
            return [f"spk{label}" for label in labels]

    monkeypatch.setattr(module, "SpeakerClassifiDataset", NoData)
    options = {
        "datarc": {"file_path": str(tmp_path), "meta_data": "", "max_timestep": 128_000},
        "modelrc": {
            "projector_dim": 256,
            "select": "UtteranceLevel",
            "UtteranceLevel": {"pooling": "MeanPooling"},
        },
    }
    theirs = module.DownstreamExpert(24, options, str(tmp_path))
    task = Task("smoke")
    task.slots = [[f"spk{k}" for k in range(5)]]
    head = task.head(24)
    head.load_state_dict(
        {
            "projector.weight": theirs.projector.weight,
            "projector.bias": theirs.projector.bias,
            "linear.weight": theirs.model.post_net.linear.weight,
            "linear.bias": theirs.model.post_net.linear.bias,
        }
    )
    lens = torch.tensor([30, 21, 1])
    clips = [torch.randn(int(n), 24) for n in lens]
    records: dict[str, list[Any]] = {
        k: [] for k in ("loss", "acc", "filename", "predict_speaker", "truth_speaker")
    }
    expected = theirs("train", clips, [4, 0, 2], ["a", "b", "c"], records)
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    logits = head(padded, lens)
    loss = task.loss(logits, lens, [(4,), (0,), (2,)])
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    assert task.decode(logits, lens) == records["predict_speaker"]
    loss.backward()
    expected.backward()
    torch.testing.assert_close(head.projector.weight.grad, theirs.projector.weight.grad)
    # the mean as a single frame gives the same logits: what the cache relies on
    means = torch.stack([clip.mean(0, keepdim=True) for clip in clips])
    torch.testing.assert_close(head(means, torch.ones(3, dtype=torch.int64)), logits, atol=1e-5, rtol=0)
    head.linear.bias.data[0] += 0.5  # control
    assert abs(float(task.loss(head(padded, lens), lens, [(4,), (0,), (2,)]) - expected)) > 1e-3


def test_accuracy_counts_clips() -> None:
    rows = [Prediction(str(i), "a" if i < 3 else "b", "a", f"s{i % 2}") for i in range(4)]
    metric = Task("smoke").metrics(rows)["acc"]
    assert metric.value == 75
    assert metric.n == 4


def test_official_values_are_s3prls() -> None:
    protocol = Task("full").protocol
    assert (protocol.steps, protocol.batch_clips, protocol.grad_clip, protocol.eval_every) == (
        200_000,
        32,
        1,
        5000,
    )
    assert protocol.max_train_clip_s == 8
