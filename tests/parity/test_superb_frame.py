"""Heads, losses, answers and metrics of ASR, SF, SD and QbE against s3prl's own experts, on equal weights.

PR's are in tests/downstream/test_pr.py. Each has a control: a changed weight or rule must be seen.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sslbench.downstream.sf.task import Task as SlotFilling
from sslbench.downstream.sf.text import SlotVocab
from sslbench.downstream.superb_asr.task import LETTERS
from sslbench.downstream.superb_asr.task import Task as Recognition
from sslbench.probe.recurrent import RecurrentHead
from sslbench.probe.specaug import SpecAugment
from sslbench.probe.task import Example, Prediction

pytest.importorskip("s3prl")
DIM, HIDDEN = 24, 16
RNNS = {
    "total_rate": -1, "module": "LSTM", "bidirection": True, "dim": [HIDDEN, HIDDEN], "dropout": [0.2, 0.2],
    "layer_norm": [False, False], "proj": [False, False], "sample_rate": [1, 1], "sample_style": "concat",
}  # fmt: skip
MODEL = {"project_dim": HIDDEN, "zero_infinity": True, "select": "RNNs", "RNNs": RNNS}


def take_weights(head: RecurrentHead, theirs: Any) -> None:
    state = {f"projector.{k}": v for k, v in theirs.projector.state_dict().items()}
    state |= {f"linear.{k}": v for k, v in theirs.model.linear.state_dict().items()}
    for number, layer in enumerate(theirs.model.rnns):
        for key, value in layer.layer.state_dict().items():
            side = "back" if key.endswith("_reverse") else "ahead"
            state[f"rnns.{number}.{side}.{key.removesuffix('_reverse')}"] = value
    head.load_state_dict(state)


def clips(*lens: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, DIM, generator=generator) * 2 for n in lens]


def records(*names: str) -> dict[str, list[Any]]:
    return {name: [] for name in ("loss", *names)}


def pad(features: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.nn.utils.rnn.pad_sequence(features, batch_first=True), torch.tensor(
        [len(f) for f in features]
    )


def asr_expert(folder: Path) -> Any:
    module = pytest.importorskip("s3prl.downstream.asr.expert")
    counts = folder / "char.dict"
    counts.write_text("".join(f"{letter} {100 - i}\n" for i, letter in enumerate(LETTERS)))
    data = {"dict_path": str(counts), "zero_infinity": True, "decoder_args": {"decoder_type": "None"}}
    options = {"datarc": data, "modelrc": MODEL}
    return module.DownstreamExpert(DIM, 320, options, str(folder))


def test_recognition_equals_s3prls_expert(tmp_path: Path) -> None:
    theirs = asr_expert(tmp_path)
    task = Recognition("smoke")
    assert [theirs.dictionary[i] for i in range(len(task.labels))] == task.labels
    texts = ["THE CAT'S MAT", "A", "ON", "RAN HOME"]
    spelled = [" ".join(text.replace(" ", "|")) + " |" for text in texts]
    lines = [theirs.dictionary.encode_line(s, line_tokenizer=str.split).tolist() for s in spelled]
    targets = [task.encode(text) for text in texts]
    assert [tuple(line) for line in lines] == targets

    task = Recognition("full")
    task.dim = HIDDEN
    head = task.head(DIM)
    assert isinstance(head, RecurrentHead)
    assert head.augment is not None
    head.augment.eval()  # s3prl's runner applies it outside the expert; tested below
    take_weights(head, theirs)
    features = clips(40, 23, 12, 3)  # the last is too short for its letters
    padded, lens = pad(features)
    found = records("target_tokens", "target_words", "pred_tokens", "pred_words", "filenames")
    losses = []
    for run in (
        lambda: theirs("train", features, lines, list("abcd"), found),
        lambda: task.loss(head(padded, lens), lens, targets),
    ):
        torch.manual_seed(5)  # of the dropout
        losses.append(run())
    torch.testing.assert_close(losses[1], losses[0], atol=1e-6, rtol=0)
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(head.projector.weight.grad, theirs.projector.weight.grad)
    torch.testing.assert_close(
        head.rnns[1].back.weight_hh_l0.grad, theirs.model.rnns[1].layer.weight_hh_l0_reverse.grad
    )

    theirs.eval(), head.eval()
    found = records("target_tokens", "target_words", "pred_tokens", "pred_words", "filenames")
    with torch.no_grad():
        theirs("test", features, lines, list("abcd"), found)
        answers = task.decode(head(padded, lens), lens)
    assert answers == [" ".join(words) for words in found["pred_words"]]
    assert any(answers)
    assert [" ".join(words) for words in found["target_words"]] == texts
    rows = [
        Prediction(str(i), hyp, ref, "s") for i, (hyp, ref) in enumerate(zip(answers, texts, strict=True))
    ]
    _, wer = theirs._compute_metrics(
        found["pred_tokens"], found["pred_words"], found["target_tokens"], found["target_words"]
    )
    assert task.metrics(rows)["wer"].value == pytest.approx(wer)

    head.linear.bias.data[5] += 2.0  # control
    with torch.no_grad():
        reference = theirs("test", features, lines, list("abcd"), found)
        assert abs(float(task.loss(head(padded, lens), lens, targets) - reference)) > 1e-3


def sf_expert(folder: Path, slots: list[str]) -> Any:
    module = pytest.importorskip("s3prl.downstream.ctc.expert")
    letters, names = folder / "character.txt", folder / "slots.txt"
    letters.write_text("\n".join(" ABCDEFGHIJKLMNOPQRSTUVWXYZ'"))
    names.write_text("\n".join(["O", *slots]))
    text = {"mode": "character-slot", "vocab_file": str(letters), "slots_file": str(names)}
    options = {
        "corpus": {"name": "snips"}, "text": text, "model": MODEL,
        "metric": ["slot_type_f1", "slot_value_cer"], "metric_higher_better": True,
    }  # fmt: skip
    return module.DownstreamExpert(DIM, 320, options, str(folder))


SENTENCES = [
    ("PLAY JAZZ & BLUES BY ANN LEE", "O genre genre genre O artist artist"),
    ("SING", "O"),
    ("ANN 'S SONG , NOW !", "artist artist O O time O"),  # ends in punctuation: no end symbol
    ("BOB ANN", "artist genre"),
]


def test_slot_filling_equals_s3prls_expert(tmp_path: Path) -> None:
    slots = ["genre", "artist", "time"]
    theirs = sf_expert(tmp_path, slots)
    task = SlotFilling("smoke")
    task.vocab, task.dim = SlotVocab(slots), HIDDEN
    assert len(task.vocab) == theirs.tokenizer.vocab_size
    lines = [theirs.tokenizer.encode(f"BOS {text} EOS\tO {tags} Intent") for text, tags in SENTENCES]
    targets = [task.vocab.encode(text.split(), tags.split()) for text, tags in SENTENCES]
    assert [tuple(line) for line in lines] == targets
    assert [theirs.tokenizer.decode(t) for t in targets] == [task.vocab.decode(t) for t in targets]

    head = task.head(DIM).eval()
    theirs.eval()
    assert isinstance(head, RecurrentHead)
    take_weights(head, theirs)
    features = clips(60, 25, 41, 30)
    padded, lens = pad(features)
    found = records("hypothesis", "groundtruth", "filename")
    with torch.no_grad():
        expected = theirs("test", features, [list(t) for t in targets], list("abcd"), found)
        loss = task.loss(head(padded, lens), lens, targets)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    one_by_one: list[str] = []
    for clip, target in zip(features, targets, strict=True):  # as s3prl evaluates
        single = records("hypothesis", "groundtruth", "filename")
        with torch.no_grad():
            theirs("test", [clip], [list(target)], ["x"], single)
        one_by_one += single["hypothesis"]
    with torch.no_grad():
        assert task.decode(head(padded, lens), lens) == one_by_one
    head.linear.bias.data[5] += 2.0  # control
    with torch.no_grad():
        assert abs(float(task.loss(head(padded, lens), lens, targets) - expected)) > 1e-4


HEARD = [
    ("PLAY B-genre JAZZ BLUES E-genre BY B-artist AN LEE E-artist", 0),
    ("SONG B-time NOW E-time", 1),  # a slot that was not said
    ("B-artist B-genre ANN S E-genre E-artist SONG", 2),  # marks inside a value
    ("B-artist BOB E-artist B-artist BOBBY E-artist", 3),  # two values for one, and one type missing
    ("", 0),
    ("B-artist ANN", 3),  # never closed
    ("B-genre  JAZZ   BLUES  E-genre", 0),
]


def test_slot_metrics_equal_s3prls() -> None:
    module = pytest.importorskip("s3prl.downstream.ctc.metric")
    vocab = SlotVocab(["genre", "artist", "time"])
    refs = [vocab.decode(vocab.encode(text.split(), tags.split())) for text, tags in SENTENCES]
    rows = [Prediction(str(i), hyp, refs[number], "s") for i, (hyp, number) in enumerate(HEARD)]
    said = {"hypothesis": [row.hyp for row in rows], "groundtruth": [row.ref for row in rows]}
    ours = SlotFilling("smoke").metrics(rows)
    assert ours["slot_type_f1"].value == pytest.approx(100 * module.slot_type_f1(**said))
    assert ours["slot_value_cer"].value == pytest.approx(100 * module.slot_value_cer(**said))
    assert 0 < ours["slot_type_f1"].value < 100
    # control: counting every reference value against the first value heard would give another number
    swapped = [Prediction(row.id, row.hyp.replace("BOB E", "BIB E"), row.ref, "s") for row in rows]
    worse = SlotFilling("smoke").metrics(swapped)["slot_value_cer"].value
    assert worse != pytest.approx(ours["slot_value_cer"].value)


@pytest.mark.parametrize("lens", [(60, 45, 31), (9, 8, 3), (50, 11, 10)])
def test_spec_augment_equals_s3prls(lens: tuple[int, ...]) -> None:
    from s3prl.downstream.specaug import SpecAug

    official = SpecAug(
        adaptive=False, time_warp_window=5, time_mask_width_range=[0, 40], freq_mask_width_range=[0, 50],
        num_freq_mask=4, num_time_mask=2,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    features = [torch.randn(n, 96, generator=generator) for n in lens]
    padded, lengths = pad(features)
    torch.manual_seed(7)
    theirs, _ = official([clip.clone().requires_grad_(True) for clip in features])
    torch.manual_seed(7)
    ours = SpecAugment().train()(padded, lengths)
    for clip, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(clip[: len(expected)], expected)
    assert not torch.equal(ours, padded)
    torch.manual_seed(7)  # control: one mask more draws other masks
    other = SpecAugment(time_masks=3).train()(padded, lengths)
    assert not torch.equal(other, ours)
    assert torch.equal(SpecAugment().eval()(padded, lengths), padded)


def sd_expert(folder: Path) -> Any:
    module = pytest.importorskip("s3prl.downstream.diarization.expert")
    options = {
        "datarc": {"num_speakers": 2, "frame_shift": None},
        "loaderrc": {"train_batchsize": 8, "eval_batchsize": 1},
        "modelrc": {"rnn_layers": 1, "hidden_size": HIDDEN},
        "scorerc": {"save_predictions": True},
    }
    return module.DownstreamExpert(DIM, 320, options, str(folder))


def test_diarization_equals_s3prls_expert(tmp_path: Path) -> None:
    import numpy as np

    from sslbench.downstream.sd.answer import Answer, turns_text
    from sslbench.downstream.sd.der import Turn
    from sslbench.downstream.sd.task import Task

    h5py = pytest.importorskip("h5py", reason="pip install 'sslbench[superb]'")
    theirs = sd_expert(tmp_path)
    task = Task("smoke")
    task.dim = HIDDEN
    head = task.head(DIM)
    head.load_state_dict(
        {f"rnn.{k}": v for k, v in theirs.model.rnn.state_dict().items()}
        | {f"linear.{k}": v for k, v in theirs.model.linear.state_dict().items()}
    )
    talks = [
        [Turn(0.1, 0.7, "b"), Turn(0.5, 1.0, "a")],
        [Turn(0.0, 0.4, "x")],
        [Turn(0.2, 0.3, "q"), Turn(0.25, 0.6, "p")],
    ]
    # less than the labels, as convolutions give (also the longest), and more, as rounding gives
    features = clips(49, 31, 28)
    targets = [
        {"samples": n, "turns": [[t.start, t.end, t.speaker] for t in turns]}
        for n, turns in zip((16_000, 9_900, 9_600), talks, strict=True)
    ]
    labels = [task._labels(target).numpy() for target in targets]
    assert [len(label) for label in labels] == [50, 30, 30]
    found = records("acc", "der")
    expected = theirs("train", features, labels, [50, 30, 30], None, found)
    padded, lens = pad(features)
    logits = head(padded, lens)
    loss = task.loss(logits, lens, targets[:3])
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(head.rnn.weight_hh_l0.grad, theirs.model.rnn.weight_hh_l0.grad)

    single = records("acc", "der")
    head.eval(), theirs.eval()
    with torch.no_grad():
        for number, (clip, label) in enumerate(zip(features, labels, strict=True)):  # one by one, as s3prl
            theirs("test", [clip], [label], [len(label)], str(number), single)
        answers = task.decode(head(padded, lens), lens)
    cuts: list[Any] = [SimpleNamespace(id=str(number)) for number in range(3)]
    examples = [
        Example(cut, target, turns_text(turns), "s")
        for cut, target, turns in zip(cuts, targets, talks, strict=True)
    ]
    rows = task.predictions("test", examples, answers)
    for row in rows:
        with h5py.File(tmp_path / "scoring/predictions" / f"{row.id}.h5") as file:
            np.testing.assert_allclose(Answer.of(row.hyp).probabilities(), file["T_hat"][:], atol=1e-3)
    ours = task.metrics(rows)
    assert ours["frame_acc"].value == pytest.approx(100 * sum(single["acc"]) / 3)
    assert ours["frame_der"].value == pytest.approx(100 * sum(single["der"]) / 3)
    assert 0 < ours["frame_acc"].value < 100

    head.train()
    head.linear.bias.data[0] += 3.0  # control
    assert abs(float(task.loss(head(padded, lens), lens, targets).detach() - expected.detach())) > 1e-2


@pytest.mark.parametrize("seconds", [0.9, 1.4, 2.5])
def test_frame_labels_equal_s3prls(tmp_path: Path, seconds: float) -> None:
    """On a Kaldi-style folder, in chunks that turns begin in, end in and span."""
    import numpy as np
    import soundfile

    from sslbench.downstream.sd.data import frame_labels, read_kaldi
    from sslbench.downstream.sd.der import Turn

    dataset = pytest.importorskip("s3prl.downstream.diarization.dataset")
    turns = [Turn(0.03, min(0.71, seconds), "z"), Turn(0.35, seconds - 0.02, "a")]
    for part in ("train", "dev", "test"):
        folder = tmp_path / part
        folder.mkdir()
        soundfile.write(folder / "r.wav", np.zeros(int(16_000 * seconds)), 16_000)
        lines = {
            "wav.scp": [f"r {folder / 'r.wav'}"],
            "reco2dur": [f"r {seconds}"],
            "segments": [f"u{i} r {t.start} {t.end}" for i, t in enumerate(turns)],
            "utt2spk": [f"u{i} {t.speaker}" for i, t in enumerate(turns)],
            "rttm": [f"SPEAKER r 1 {t.start} {t.end - t.start} <NA> <NA> {t.speaker} <NA>" for t in turns],
        }
        for name, rows in lines.items():
            (folder / name).write_text("\n".join(rows) + "\n")
    (talk,) = read_kaldi(tmp_path)["test"]
    theirs = dataset.DiarizationDataset(
        "test", str(tmp_path / "test"), chunk_size=20, frame_shift=320, num_speakers=2
    )
    _, expected, _ = theirs[0]
    frames = int(seconds * 16_000 / 320)
    ours = frame_labels(talk.turns, frames, 320, 2, 20)
    np.testing.assert_array_equal(ours, np.concatenate(expected))
    assert ours.any()
    # control: without chunks the turn that spans a whole chunk is marked
    assert (frame_labels(talk.turns, frames, 320, 2, 10_000) != ours).any()


def test_query_matching_equals_s3prls() -> None:
    import numpy as np

    from sslbench.downstream.qbe.dtw import Documents, match, normalized

    pytest.importorskip("dtw", reason="needs dtw-python, as s3prl does: pip install dtw-python lxml")
    module = pytest.importorskip("s3prl.downstream.quesst14_dtw.expert")
    rng = np.random.default_rng(2)
    clips_ = [rng.normal(1, 2, (n, 12)).astype(np.float32) for n in (9, 14, 5, 40, 33, 7, 3)]
    ours = normalized(clips_)
    everything = torch.cat([torch.from_numpy(clip) for clip in clips_])
    mean, deviation = everything.mean(0), torch.clamp(everything.std(0), 1e-9)
    for clip, normal in zip(clips_, ours, strict=True):
        np.testing.assert_allclose(normal, ((torch.from_numpy(clip) - mean) / deviation).numpy(), atol=1e-5)
    options = {
        "step_pattern": "asymmetric", "keep_internals": False, "distance_only": False,
        "open_begin": True, "open_end": True,
    }  # fmt: skip
    queries, documents = ours[:3], ours[3:]
    whole = Documents.of(documents)
    for query in queries:
        expected = [module.match(query, d, "q", "d", module.cosine_exp, True, options)[2] for d in documents]
        np.testing.assert_allclose(match(query, whole), expected, atol=1e-5)
        # control: another distance is another number
        other = [module.match(query, d, "q", "d", module.cosine_exp, False, options)[2] for d in documents]
        assert np.abs(match(query, whole) - other).max() > 1e-2
    assert not match(ours[6], whole).any()  # fewer than five frames match nothing
