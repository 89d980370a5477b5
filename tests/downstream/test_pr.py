"""Phone recognition: targets, s3prl's head, loss and decoding, the error rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from probe_fakes import make_clip, make_corpus

from sslbench.data.manifests import write_corpus
from sslbench.downstream.pr.data import official_phones
from sslbench.downstream.pr.task import SPECIAL, Task
from sslbench.errors import SslbenchError
from sslbench.probe.task import Prediction

PHONES = ["AA", "B", "CH", "D"]


def test_targets_come_from_the_alignment(tmp_path: Path) -> None:
    task = Task("smoke")
    parts = task.prepare(make_corpus(tmp_path, speakers=2, per_session=2))
    assert task.labels[:3] == SPECIAL
    assert set(task.labels[3:]) == {"AA", "IY", "SH", "UW"}
    example = parts["test"][0]
    assert example.target[-1] == 1  # <eos>, as s3prl encodes
    assert [task.labels[i] for i in example.target[:-1]] == example.reference.split()


def test_a_lexicon_stands_in_for_alignments_and_neither_is_an_error(tmp_path: Path) -> None:
    splits: dict[str, Any] = {}
    for number, split in enumerate(("train-clean-100", "dev-clean", "test-clean")):
        cut = make_clip(tmp_path / f"{split}.wav", number, 0)
        cut.supervisions[0].alignment = None
        cut.supervisions[0].text = "HELLO WORLD"
        splits[split] = [cut]
    write_corpus(tmp_path / "m", "words", splits, synthetic=True)
    with pytest.raises(SslbenchError, match=r"no phone alignment .* lexicon.txt"):
        Task("smoke").prepare(tmp_path / "m")
    lexicon = tmp_path / "m" / "lexicon.txt"
    lexicon.write_text("HELLO HH AH0 L OW1\nHELLO(2) HH EH0 L OW1\n")
    with pytest.raises(SslbenchError, match="lacks WORLD"):
        Task("smoke").prepare(tmp_path / "m")
    lexicon.write_text(lexicon.read_text() + "WORLD W ER1 L D\n")
    task = Task("smoke")
    parts = task.prepare(tmp_path / "m")
    assert parts["train"][0].reference == "HH AH0 L OW1 W ER1 L D"
    assert task.labels == SPECIAL + official_phones()  # stress is kept, as in s3prl's vocabulary
    assert len(official_phones()) == 71
    # s3prl's pair of lexicons serves as well; the first to know a word counts
    lexicon.rename(lexicon.with_name("librispeech-lexicon-allothers-g2p.txt"))
    lexicon.with_name("librispeech-lexicon-200k-g2p.txt").write_text("WORLD W AO1 L\n")
    assert Task("smoke").prepare(tmp_path / "m")["dev"][0].reference == "HH AH0 L OW1 W AO1 L"


def test_error_rate_pools_over_clips() -> None:
    rows = [
        Prediction("a", "AA B", "AA B CH D", "s1"),  # 2 deletions
        Prediction("b", "AA AA", "AA B", "s2"),  # 1 substitution
        Prediction("c", "", "D D", "s3"),  # 2 deletions
    ]
    metric = Task("smoke").metrics(rows)["per"]
    assert metric.value == pytest.approx(100 * 5 / 8)
    assert metric.low is not None
    assert metric.low <= metric.value <= metric.high


def s3prl_expert(tmp_path: Path) -> Any:
    """s3prl's own downstream expert with the settings of libriphone.yaml."""
    pytest.importorskip("s3prl")
    expert = pytest.importorskip("s3prl.downstream.ctc.expert")
    vocab = tmp_path / "phones.txt"
    vocab.write_text("\n".join(PHONES) + "\n")
    model = {"project_dim": 256, "zero_infinity": True, "select": "FrameLevel"}
    options = {
        "corpus": {"name": "libriphone"},
        "text": {"mode": "word", "vocab_file": str(vocab)},
        "model": model,
        "metric": ["per"],
        "metric_higher_better": False,
    }
    return expert.DownstreamExpert(24, 320, options, str(tmp_path))


def test_head_loss_decoding_and_metric_equal_s3prls(tmp_path: Path) -> None:
    theirs = s3prl_expert(tmp_path)
    task = Task("smoke")
    task.labels = SPECIAL + PHONES
    head = task.head(24)
    head.load_state_dict(
        {
            "projector.weight": theirs.projector.weight,
            "projector.bias": theirs.projector.bias,
            "linear.weight": theirs.model.linear.weight,
            "linear.bias": theirs.model.linear.bias,
        }
    )
    generator = torch.Generator().manual_seed(1)
    lens = torch.tensor([30, 21, 9, 2])  # the last is too short for its phones
    clips = [torch.randn(int(n), 24, generator=generator) * 3 for n in lens]
    texts = ["AA B CH", "D D AA", "B", "AA B CH D AA"]
    targets = [tuple(theirs.tokenizer.encode(text)) for text in texts]
    records: dict[str, list[Any]] = {key: [] for key in ("loss", "hypothesis", "groundtruth", "filename")}
    expected = theirs("train", clips, [list(t) for t in targets], ["a", "b", "c", "d"], records)

    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    logits = head(padded, lens)
    loss = task.loss(logits, lens, targets)
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(head.projector.weight.grad, theirs.projector.weight.grad)

    # s3prl evaluates one clip at a time, where no padded frame can add a phone
    hypotheses = []
    for clip, target in zip(clips, targets, strict=True):
        single: dict[str, list[Any]] = {key: [] for key in records}
        theirs("test", [clip], [list(target)], ["x"], single)
        hypotheses += single["hypothesis"]
    assert task.decode(logits.detach(), lens) == hypotheses
    rows = [Prediction(str(i), h, t, "s") for i, (h, t) in enumerate(zip(hypotheses, texts, strict=True))]
    from s3prl.downstream.ctc.metric import per

    # an empty hypothesis counts one word in s3prl's split(" "), so those are left out here
    some = [row for row in rows if row.hyp]
    assert some
    ours = task.metrics(some)["per"].value
    assert ours == pytest.approx(100 * per([row.hyp for row in some], [row.ref for row in some]))

    head.linear.bias.data[3] += 0.5  # control: the comparison sees a changed weight
    assert float(task.loss(head(padded, lens), lens, targets)) != pytest.approx(float(expected), abs=1e-3)


def test_official_values_are_s3prls() -> None:
    protocol = Task("full").protocol
    assert (protocol.steps, protocol.batch_clips, protocol.grad_clip, protocol.eval_every) == (
        100_000,
        32,
        1,
        1000,
    )
    assert protocol.train_hours is None
    assert Task("smoke").protocol.steps < 1000


def test_librispeech_with_a_lexicon_beside_it(tmp_path: Path) -> None:
    """As it is unpacked, without manifests; words that the lexicon lacks are named."""
    for split in ("train-clean-100", "dev-clean", "test-clean"):
        folder = tmp_path / "LibriSpeech" / split / "7" / "3"
        folder.mkdir(parents=True)
        make_clip(folder / "clip.wav", 1, 0)
        (folder / "clip.wav").rename(folder / "7-3-0000.flac")  # libsndfile reads by content
        (folder / "7-3.trans.txt").write_text("7-3-0000 HELLO\n")
    with pytest.raises(SslbenchError, match=r"no phone alignment and its corpus folder no lexicon.txt"):
        Task("full").prepare(tmp_path)
    lexicon = tmp_path / "LibriSpeech" / "lexicon.txt"
    lexicon.write_text("HALLO HH AH0 L OW1\n")
    with pytest.raises(SslbenchError, match="lacks HELLO"):
        Task("full").prepare(tmp_path)
    lexicon.write_text("HELLO HH AH0 L OW1\n")
    for root in (tmp_path, tmp_path / "LibriSpeech"):
        task = Task("full")
        example = task.prepare(root)["test"][0]
        assert example.reference == "HH AH0 L OW1"
        assert example.cut.custom["corpus"].startswith("librispeech (3 of 33862")
        assert len(task.labels) == 3 + 71
    lexicon.write_text("HELLO HH AH L OW\n")  # phones without stress are another task
    Task("short").prepare(tmp_path)
    with pytest.raises(
        SslbenchError, match=r"4 phones are not SUPERB's 71.*lexicon-200k-g2p.txt and .*others"
    ):
        Task("full").prepare(tmp_path)


def test_full_takes_no_split_for_another(tmp_path: Path) -> None:
    splits: dict[str, Any] = {}
    for number, split in enumerate(("train-clean-100", "dev-other", "test-clean")):
        splits[split] = [make_clip(tmp_path / f"{split}.wav", number, 0)]
    write_corpus(tmp_path / "m", "librispeech", splits, synthetic=False)
    parts = Task("short").prepare(tmp_path / "m")
    assert len(parts["dev"]) == 1  # dev-other stands in
    assert parts["test"][0].cut.custom["corpus"] == "librispeech (3 of 33862 files)"
    with pytest.raises(SslbenchError, match=r"no split 'dev-clean' .*dev-other.* tier 'full' takes no other"):
        Task("full").prepare(tmp_path / "m")


def test_batches_are_two_windows_of_neighbours() -> None:
    """s3prl's loader: an epoch starts one window at every clip, and two windows make an update."""
    task = Task("smoke")
    task.protocol = replace(task.protocol, batch_clips=4)

    class Sized:
        def __init__(self, length: int) -> None:
            self.target = (0,) * length

    examples = [Sized(length) for length in range(1, 9)]
    stream = task.batches(examples, seed=0)  # type: ignore[arg-type]
    epoch = [next(stream) for _ in range(4)]
    starts = [batch[i : i + 2] for batch in epoch for i in (0, 2)]
    assert all(first - second == 1 for first, second in starts)
    counts = [sum(batch.count(i) for batch in epoch) for i in range(8)]
    # the longest is in one window only, the shortest two in one more, because the last window is whole
    assert counts == [2, 3, 2, 2, 2, 2, 2, 1]
