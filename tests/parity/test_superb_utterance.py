"""KS, IC, ER, SID and ASV against s3prl's own experts: same features, weights and batches, same numbers."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from sslbench.downstream.asv.eer import equal_error_rate
from sslbench.downstream.asv.model import CONTEXTS, XVector
from sslbench.downstream.ks.data import CLASSES, hashed_part
from sslbench.probe.batching import weighted_batches
from sslbench.probe.task import load_task
from sslbench.probe.utterance import UtteranceTask

DIM = 24
MODEL = {"projector_dim": 256, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}}


def s3prl_module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of s3prl's downstream, with stand-ins for packages that these tests don't use."""
    pytest.importorskip("s3prl")
    from sslbench.integrations.s3prl import compat

    compat.apply()
    for missing in ("catalyst", "catalyst.data", "catalyst.data.sampler", "sox", "joblib.parallel"):
        try:
            importlib.import_module(missing)
        except ImportError:
            module = ModuleType(missing)
            module.DistributedSamplerWrapper = module.Transformer = module.Parallel = module.delayed = None  # type: ignore[attr-defined]
            monkeypatch.setitem(__import__("sys").modules, missing, module)
    try:
        return importlib.import_module(f"s3prl.downstream.{name}")
    except (ImportError, OSError) as error:
        pytest.skip(f"s3prl.downstream.{name} cannot be imported here ({error})")


def blank(module: ModuleType) -> Any:
    """An expert without its data: only what its forward needs is put in."""
    expert = module.DownstreamExpert.__new__(module.DownstreamExpert)
    torch.nn.Module.__init__(expert)
    return expert


def with_head(module: ModuleType, classes: int) -> Any:
    expert = blank(module)
    expert.projector = torch.nn.Linear(DIM, 256)
    expert.model = module.UtteranceLevel(input_dim=256, output_dim=classes, **MODEL["UtteranceLevel"])
    expert.objective = torch.nn.CrossEntropyLoss()
    return expert


def features(*lens: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, DIM, generator=generator) * 3 for n in lens]


def compare(
    task: UtteranceTask, expert: Any, clips: list[torch.Tensor], *rest: Any, targets: list[tuple[int, ...]]
) -> tuple[list[Any], dict[str, Any]]:
    """Five steps of Adam on the same batch with both; equal losses, then a perturbed twin that differs."""
    head = task.head(DIM)
    head.load_state_dict(
        {
            "projector.weight": expert.projector.weight.detach().clone(),
            "projector.bias": expert.projector.bias.detach().clone(),
            "linear.weight": expert.model.post_net.linear.weight.detach().clone(),
            "linear.bias": expert.model.post_net.linear.bias.detach().clone(),
        }
    )
    lens = torch.tensor([len(clip) for clip in clips])
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    own = torch.optim.Adam(head.parameters(), lr=1e-3)
    their_parameters = [*expert.projector.parameters(), *expert.model.parameters()]
    theirs = torch.optim.Adam(their_parameters, lr=1e-3)
    answers: list[Any] = []
    records: dict[str, Any] = {}
    for _ in range(5):
        records = {key: [] for key in ("loss", "acc", "intent_loss", "filename", "predict", "truth",
                                        "predict_speaker", "truth_speaker")}  # fmt: skip
        expected = expert("train", clips, *rest, records)
        logits = head(padded, lens)
        loss = task.loss(logits, lens, targets)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
        answers = task.decode(logits.detach(), lens)
        for optimizer, value, parameters in (
            (own, loss, head.parameters()),
            (theirs, expected, their_parameters),
        ):
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(list(parameters), 1.0)
            optimizer.step()
    torch.testing.assert_close(head.projector.weight, expert.projector.weight, atol=1e-5, rtol=0)
    with torch.no_grad():
        head.linear.bias[0] += 0.5  # control: the comparison sees a changed weight
        changed = float(task.loss(head(padded, lens), lens, targets))
        same = float(expert("train", clips, *rest, {**records, **{k: [] for k in records}}))
    assert abs(changed - same) > 1e-3
    return answers, records


def test_ks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = s3prl_module("speech_commands.expert", monkeypatch)
    task = load_task("ks", "full")
    assert isinstance(task, UtteranceTask)
    task.slots = [CLASSES]
    labels = [4, 0, 11, 2]
    answers, records = compare(
        task,
        with_head(module, 12),
        features(30, 21, 1, 9),
        labels,
        list("abcd"),
        targets=[(k,) for k in labels],
    )
    assert answers == records["predict"]
    assert importlib.import_module("s3prl.downstream.speech_commands.dataset").CLASSES == CLASSES


def test_ks_split_and_sampling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = s3prl_module("speech_commands.expert", monkeypatch)
    names = [f"{n:08x}_nohash_{n % 3}.wav" for n in range(0, 40_000, 97)]
    (tmp_path / "yes").mkdir()
    for name in names:
        (tmp_path / "yes" / name).touch()
    train, dev = module.split_dataset(tmp_path)
    found = {part: {name for name in names if hashed_part(name) == part} for part in ("train", "dev")}
    assert found["train"] == {path.name for _, path in train}
    assert found["dev"] == {path.name for _, path in dev}
    stream = weighted_batches([1 / 90] * 90 + [1 / 10] * 10, 32, seed=0)
    drawn = [i for _ in range(300) for i in next(stream)]
    assert 0.45 < sum(i >= 90 for i in drawn) / len(drawn) < 0.55


def test_ic(monkeypatch: pytest.MonkeyPatch) -> None:
    module = s3prl_module("fluent_commands.expert", monkeypatch)
    task = load_task("ic", "full")
    assert isinstance(task, UtteranceTask)
    task.slots = [["on", "off", "up"], ["lamp", "music"], ["none", "kitchen", "hall", "bed"]]
    expert = with_head(module, 9)
    expert.values_per_slot = [3, 2, 4]
    expert.Sy_intent = {
        name: dict(enumerate(values))
        for name, values in zip(("action", "object", "location"), task.slots, strict=True)
    }
    targets = [(0, 1, 3), (2, 0, 0), (1, 1, 2)]
    answers, records = compare(
        task, expert, features(30, 12, 5), [np.array(t) for t in targets], list("abc"), targets=list(targets)
    )
    assert answers == [task.SEPARATOR.join(words) for words in records["predict"]]


def test_er(monkeypatch: pytest.MonkeyPatch) -> None:
    module = s3prl_module("emotion.expert", monkeypatch)
    task = load_task("er", "full")
    assert isinstance(task, UtteranceTask)
    task.slots = [["neu", "hap", "ang", "sad"]]
    expert = with_head(module, 4)
    expert.test_dataset = type("Data", (), {"idx2emotion": dict(enumerate(task.slots[0]))})()
    labels = [3, 0, 2, 2]
    answers, records = compare(
        task, expert, features(40, 21, 3, 9), labels, list("abcd"), targets=[(k,) for k in labels]
    )
    assert answers == records["predict"]
    assert task.protocol.batch_clips == 4 * 8


def test_er_dev_split_is_s3prls() -> None:
    from torch.utils.data import random_split

    from sslbench.downstream.er.data import _fold

    torch.manual_seed(0)
    train, dev = random_split(range(57), [int((1 - 0.2) * 57), 57 - int((1 - 0.2) * 57)])  # type: ignore[arg-type]
    ours = _fold(list(range(57)), [])  # type: ignore[arg-type]
    assert ours["train"] == list(train)
    assert ours["dev"] == list(dev)


def test_sid(monkeypatch: pytest.MonkeyPatch) -> None:
    module = s3prl_module("voxceleb1.expert", monkeypatch)
    task = load_task("sid", "full")
    assert isinstance(task, UtteranceTask)
    task.slots = [[f"id{k + 10001}" for k in range(5)]]
    labels = [4, 0, 2]
    answers, records = compare(
        task, with_head(module, 5), features(30, 21, 1), labels, list("abc"), targets=[(k,) for k in labels]
    )
    assert answers == records["predict_speaker"]


def asv_expert(monkeypatch: pytest.MonkeyPatch, speakers: int) -> Any:
    module = s3prl_module("sv_voxceleb1.expert", monkeypatch)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self, *_: self)
    expert = blank(module)
    expert.modelrc = {"module": "XVector"}
    expert.connector = torch.nn.Linear(DIM, 512)
    hparams = {"agg_dim": 1500, "dropout_p": 0.0, "batch_norm": False}
    expert.model = module.Model(512, 1500, "SP", "XVector", "UtteranceExtractor", hparams)
    expert.objective = module.AMSoftmaxLoss(hidden_dim=512, speaker_num=speakers, s=30.0, m=0.4)
    return expert


def asv_head(expert: Any, speakers: int) -> XVector:
    head = XVector(DIM, speakers)
    state = {"connector.weight": expert.connector.weight, "connector.bias": expert.connector.bias}
    for k, ((width, _), layer) in enumerate(
        zip(CONTEXTS, expert.model.framelevel_feature_extractor.module, strict=True)
    ):
        # their unfolded frames come context by context, our convolution's input channel by channel
        state[f"tdnn.{k}.weight"] = layer.kernel.weight.view(-1, width, 512).transpose(1, 2)
        state[f"tdnn.{k}.bias"] = layer.kernel.bias
    for name in ("linear1", "linear2"):
        own = getattr(expert.model.utterancelevel_feature_extractor, name)
        state |= {f"{name}.weight": own.weight, f"{name}.bias": own.bias}
    state["speakers"] = expert.objective.W
    head.load_state_dict({name: value.detach().clone() for name, value in state.items()})
    return head


def test_asv(monkeypatch: pytest.MonkeyPatch) -> None:
    expert = asv_expert(monkeypatch, 6)
    head = asv_head(expert, 6)
    task = load_task("asv", "full")
    clips, labels = features(60, 41, 25), [5, 0, 3]
    lens = torch.tensor([len(clip) for clip in clips])
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    expected = expert("train", clips, list("abc"), labels, records={"loss": []})
    loss = task.loss(head(padded, lens), lens, labels)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(head.connector.weight.grad, expert.connector.weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head.speakers.grad, expert.objective.W.grad, atol=1e-5, rtol=1e-4)

    head.eval()
    for clip in clips:  # s3prl tests one clip at a time
        records: dict[str, Any] = {}
        expert("test", [clip], ["x"], records=records)
        with torch.no_grad():
            torch.testing.assert_close(
                head(clip[None], torch.tensor([len(clip)]))[0], records["x"], atol=1e-5, rtol=0
            )
    with torch.no_grad():
        alone = head(clips[1][None], lens[1:2])
        torch.testing.assert_close(head(padded, lens)[1:2], alone, atol=1e-5, rtol=0)  # padding does no harm
        head.linear1.bias += 0.1  # control
        assert not torch.allclose(head(clips[1][None], lens[1:2]), alone, atol=1e-3)


def test_eer(monkeypatch: pytest.MonkeyPatch) -> None:
    eer = s3prl_module("sv_voxceleb1.utils", monkeypatch).EER
    for seed in range(20):
        rng = np.random.default_rng(seed)
        same = rng.random(200) < 0.4
        scores = np.round(rng.normal(same * 1.2, 1.0), 1 if seed % 2 else 6)  # with ties, and without
        assert equal_error_rate(list(same), list(scores)) == pytest.approx(
            eer(same.astype(int), scores)[0], abs=1e-9
        )
        assert equal_error_rate(list(~same), list(scores)) != pytest.approx(
            eer(same.astype(int), scores)[0], abs=1e-3
        )


def test_official_values_are_s3prls() -> None:
    expected = {
        "ks": (200_000, 32, 1, 5000), "ic": (200_000, 32, 1, 5000), "er": (30_000, 32, 1, 1000),
        "sid": (200_000, 32, 1, 5000), "asv": (200_000, 50, 1000, 20_000),
    }  # fmt: skip
    for name, values in expected.items():
        protocol = load_task(name, "full").protocol
        assert (protocol.steps, protocol.batch_clips, protocol.grad_clip, protocol.eval_every) == values
        assert len(protocol.lr_grid) == 5
        assert (protocol.train_hours, protocol.test_hours, protocol.early_stop) == (None, None, False)
    assert Counter(load_task(name, "full").protocol.optimizer for name in expected) == {"adam": 4, "adamw": 1}
