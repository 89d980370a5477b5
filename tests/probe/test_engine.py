"""The probe engine: features once, lr grid in lock-step, resume, scores from files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from probe_fakes import Spectral, make_clip, make_corpus

from sslbench.data.loading import read_cut
from sslbench.data.manifests import write_corpus
from sslbench.errors import SslbenchError
from sslbench.nn.foreign import ForeignUpstream
from sslbench.probe.batching import batches
from sslbench.probe.encoder import Encoder
from sslbench.probe.estimate import _heard_s
from sslbench.probe.model import Probe, WeightedSum
from sslbench.probe.plan import make_plan
from sslbench.probe.pooled import PooledGrid
from sslbench.probe.rundir import RunDir
from sslbench.probe.runner import Named, ProbeSettings, make_grid, run_task
from sslbench.probe.score import score_experiment, score_run
from sslbench.probe.store import CachedStore, cache_bytes
from sslbench.probe.task import ProbeTask, limited, load_task
from sslbench.probe.train import Fold, GridTrainer, Point
from sslbench.report.schema import ResultRow
from sslbench.upstreams import load_upstream


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("probe"))


def short_task(name: str, steps: int = 30, **changes: object) -> ProbeTask:
    task = load_task(name, "smoke")
    task.protocol = replace(task.protocol, steps=steps, eval_every=15, lr_grid=[1e-2, 1e-6], **changes)
    return task


def settings(corpus: Path, root: Path, **changes: object) -> ProbeSettings:
    return replace(ProbeSettings(corpus, root / "exp", root / "results"), **changes)


def run(task: ProbeTask, upstream: torch.nn.Module, how: ProbeSettings) -> ResultRow:
    return run_task(task, lambda: upstream, Named("fake", "fake"), how)


def test_training_on_cached_means_is_training_on_all_frames(corpus: Path, tmp_path: Path) -> None:
    """Same probe, same batches: the engine on layer means against a plain loop on every frame."""
    task = short_task("sid", steps=40, batch_clips=8)
    prepared = task.prepare(corpus)
    examples = prepared["train"] + prepared["dev"] + prepared["test"]
    parts, start = {}, 0
    for part, some in prepared.items():
        parts[part], start = list(range(start, start + len(some))), start + len(some)
    encoder = Encoder(Spectral())
    store = CachedStore(_folder(tmp_path / "c"), examples, encoder, pooled=True, key="k")
    grid = Point(1e-2)
    stacked = make_grid(task, store, examples, [1e-2], seed=3)
    assert isinstance(stacked, PooledGrid)
    GridTrainer(task, Fold("", examples, parts), stacked, [grid]).train(seed=5)

    torch.manual_seed(3)
    plain = Probe(store.layers, task.head(store.dim))
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-2)
    stream = batches(len(parts["train"]), task.protocol.batch_clips, seed=5)
    losses = []
    at_step: dict[int, dict[str, torch.Tensor]] = {}
    for step in range(1, 41):
        chosen = [parts["train"][i] for i in next(stream)]
        clips = encoder.encode([read_cut(examples[n].cut) for n in chosen])
        lens = torch.tensor([clip.shape[1] for clip in clips])
        states = torch.nn.utils.rnn.pad_sequence([c.transpose(0, 1) for c in clips], batch_first=True)
        loss = task.loss(plain(states.permute(2, 0, 1, 3), lens), lens, [examples[n].target for n in chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        at_step[step] = {name: value.clone() for name, value in plain.state_dict().items()}
    assert losses[-1] < losses[0] / 2  # something was learned
    curve = [entry["loss"] for entry in grid.curve]
    expected = [sum(losses[:15]) / 15, sum(losses[15:30]) / 15, sum(losses[30:]) / 10]
    assert curve == pytest.approx(expected, abs=1e-5)
    for name, other in at_step[grid.best_step].items():
        # Adam divides by tiny gradients, so single weights drift further than the loss does
        torch.testing.assert_close(stacked.state(0)[name], other, atol=1e-4, rtol=0)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_both_stores_give_the_same_features_and_results(corpus: Path, tmp_path: Path) -> None:
    rows = {}
    for name, gigabytes in (("cached", 8.0), ("live", 0.0)):
        upstream = Spectral()
        how = settings(corpus, tmp_path / name, cache_gb=gigabytes)
        rows[name] = run(short_task("pr"), upstream, how)
        assert (upstream.calls > 30) == (name == "live")
    upstream = Spectral()  # means are cached whatever the limit
    run(short_task("sid"), upstream, settings(corpus, tmp_path / "means", cache_gb=0.0))
    assert upstream.calls < 10
    assert rows["cached"].metrics == rows["live"].metrics
    assert rows["cached"].search == rows["live"].search


def test_without_a_cache_the_estimate_counts_every_pass(corpus: Path) -> None:
    task = short_task("pr", steps=100, batch_clips=4)
    plan = make_plan(task, corpus, 0)
    lengths = {part: [plan.examples[n].cut.duration for n in own] for part, own in plan.folds[""].items()}
    batches_s = 100 * 4 * sum(lengths["train"]) / len(lengths["train"])
    evaluations_s = 7 * sum(lengths["dev"]) + sum(lengths["test"])  # at 15, 30 … 90 and 100
    assert _heard_s(task, plan, "", 2) == pytest.approx(batches_s + evaluations_s)


def test_predicted_cache_size_is_the_real_one(corpus: Path, tmp_path: Path) -> None:
    examples = short_task("pr").prepare(corpus)["dev"]
    encoder = Encoder(Spectral())
    for pooled in (True, False):
        folder = _folder(tmp_path / str(pooled))
        CachedStore(folder, examples, encoder, pooled, "k")
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        headers = 400 + 8 * len(examples)
        assert 0 <= size - cache_bytes(examples, encoder, pooled) < headers


def test_a_cache_of_another_key_is_not_used(corpus: Path, tmp_path: Path) -> None:
    examples = short_task("pr").prepare(corpus)["dev"]
    folder, upstream = _folder(tmp_path / "c"), Spectral()
    encoder = Encoder(upstream)
    CachedStore(folder, examples, encoder, True, "one")
    calls = upstream.calls
    CachedStore(folder, examples, encoder, True, "one")
    assert upstream.calls == calls
    CachedStore(folder, examples, encoder, True, "two")
    assert upstream.calls > calls


def test_an_informative_upstream_beats_an_uninformative_one(corpus: Path, tmp_path: Path) -> None:
    """Learning sanity with its control: the same engine, head and budget on features without content."""
    good, bad = {}, {}
    for task, steps in (("pr", 90), ("sid", 60)):
        good[task] = run(short_task(task, steps), Spectral(), settings(corpus, tmp_path / "good"))
        bad[task] = run(short_task(task, steps), Spectral(useful=False), settings(corpus, tmp_path / "bad"))
    assert good["sid"].metrics["acc"].value > 90
    assert bad["sid"].metrics["acc"].value < 60
    assert good["pr"].metrics["per"].value < 10
    assert bad["pr"].metrics["per"].value > 60
    chosen = RunDir(tmp_path / "good" / "exp" / "pr").lr_folder(1e-2)
    shares = json.loads((chosen / "layer_weights.json").read_text())
    assert sum(shares) == pytest.approx(1)
    assert abs(shares[0] - 0.5) > 1e-3  # learned, not left as they began


def test_the_learning_rate_is_chosen_on_dev_not_on_test(corpus: Path, tmp_path: Path) -> None:
    row = run(short_task("sid"), Spectral(), settings(corpus, tmp_path))
    assert row.search is not None
    assert row.search.lr == 1e-2
    assert row.search.selected_on == "dev"
    assert set(row.search.scores) == {"0.01", "1e-06"}
    # swap the dev answers of the two rates: the other one must be chosen, with its own test score
    folder = RunDir(tmp_path / "exp" / "sid")
    first, second = folder.lr_folder(1e-2) / "dev.jsonl", folder.lr_folder(1e-6) / "dev.jsonl"
    one, two = first.read_text(), second.read_text()
    first.write_text(two)
    second.write_text(one)
    scored = score_run(folder, short_task("sid"))
    assert scored.search.lr == 1e-6
    assert scored.metrics["acc"].value < row.metrics["acc"].value


def test_scores_come_from_the_prediction_files(corpus: Path, tmp_path: Path) -> None:
    row = run(short_task("sid"), Spectral(), settings(corpus, tmp_path))
    (scored,) = score_experiment(tmp_path / "exp")
    assert scored.metrics == row.metrics
    path = Path(os.path.normpath(tmp_path / "results" / "fake" / row.artifacts["predictions"]))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["hyp"] = "nobody"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    (scored,) = score_experiment(tmp_path / "exp")
    assert scored.metrics["acc"].value < row.metrics["acc"].value


def test_finished_learning_rates_are_not_run_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies after the first rate was written: only the second one is trained by the rerun."""
    original, written = RunDir.finish, []

    def dying(self: RunDir, point, *rest) -> None:  # type: ignore[no-untyped-def]
        if written:
            raise KeyboardInterrupt
        written.append(point.value)
        original(self, point, *rest)

    monkeypatch.setattr(RunDir, "finish", dying)
    with pytest.raises(KeyboardInterrupt):
        run(short_task("sid"), Spectral(), settings(corpus, tmp_path))
    monkeypatch.setattr(RunDir, "finish", original)
    done = RunDir(tmp_path / "exp" / "sid").lr_folder(written[0]) / "done.json"
    stamp = done.stat().st_mtime_ns

    upstream = Spectral()
    resumed = run(short_task("sid"), upstream, settings(corpus, tmp_path))
    assert upstream.calls == 3  # the probes of shape and speed only: features were kept
    assert done.stat().st_mtime_ns == stamp
    whole = run(short_task("sid"), Spectral(), settings(corpus, tmp_path / "whole"))
    assert resumed.metrics == whole.metrics
    assert resumed.search == whole.search

    again = Spectral()
    run(short_task("sid"), again, settings(corpus, tmp_path))
    assert again.calls == 1
    assert not (tmp_path / "exp" / "sid" / "cache").exists()


def test_more_learning_rates_can_be_added_but_nothing_else_may_change(corpus: Path, tmp_path: Path) -> None:
    first = run(short_task("sid"), Spectral(), settings(corpus, tmp_path))
    row = run(short_task("sid"), Spectral(), settings(corpus, tmp_path, lrs=[1e-2, 1e-6, 1e-1]))
    assert row.search is not None
    assert row.search.lr_grid == [1e-1, 1e-2, 1e-6]
    assert first.search is not None
    assert row.search.scores["0.01"] == first.search.scores["0.01"]
    with pytest.raises(SslbenchError, match=r"another .*seed"):
        run(short_task("sid"), Spectral(), settings(corpus, tmp_path, seed=1))
    with pytest.raises(SslbenchError, match="another protocol"):
        run(short_task("sid", steps=31), Spectral(), settings(corpus, tmp_path))


def test_the_same_seed_gives_the_same_answers(corpus: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        run(short_task("pr"), Spectral(), settings(corpus, tmp_path / name))
        texts.append((RunDir(tmp_path / name / "exp" / "pr").lr_folder(1e-2) / "test.jsonl").read_bytes())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["pr", "sid"])
def test_clips_of_a_few_samples_do_no_harm(name: str, corpus: Path, tmp_path: Path) -> None:
    task = short_task(name, steps=15)
    prepared = task.prepare(corpus)
    for part, lengths in (("train", (1, 160, 400, 1280)), ("dev", (80,)), ("test", (500,))):
        for length in lengths:
            example = prepared[part].pop()
            cut = example.cut.truncate(duration=length / 16_000, preserve_id=True)
            prepared[part].append(replace(example, cut=cut))
    task.prepare = lambda root: prepared  # type: ignore[method-assign]
    row = run(task, Spectral(), settings(corpus, tmp_path))
    assert row.metrics[task.headline].n == len(limited(prepared["test"], task.protocol.hours("test"), 0))


def test_unreadable_clips_are_named_and_too_many_end_the_run(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", speakers=2, per_session=2)
    for path in sorted((tmp_path / "corpus").glob("train*.wav"))[:4]:
        path.write_bytes(b"junk")
    with pytest.raises(SslbenchError, match="more than the limit"):
        run(short_task("pr"), Spectral(), settings(corpus, tmp_path))
    assert len((tmp_path / "exp" / "pr" / "skipped.jsonl").read_text().splitlines()) == 4


def test_layers_of_different_shape_are_refused() -> None:
    upstream = Spectral()
    forward = upstream.forward
    upstream.forward = lambda wavs: {
        "hidden_states": [forward(wavs)["hidden_states"][0], torch.zeros(1, 3, 9)]
    }
    with pytest.raises(SslbenchError, match="differ in shape"):
        Encoder(upstream)


@pytest.mark.parametrize("rate", [160, 300, 360])
def test_a_wrong_downsample_rate_is_refused(rate: int) -> None:
    upstream = Spectral()
    assert len(ForeignUpstream(upstream, "none")([torch.randn(16_000)])["hidden_states"]) == 2
    upstream.get_downsample_rates = lambda key: rate  # type: ignore[method-assign]
    with pytest.raises(SslbenchError, match=rf"gives \d+ frames for \d+ samples, .* rate {rate} says"):
        Encoder(upstream) if rate == 160 else Encoder(upstream).encode([torch.randn(32_000)])
    with pytest.raises(SslbenchError, match=r"mend its get_downsample_rates"):
        ForeignUpstream(upstream, "none")([torch.randn(64_000)])


def test_no_frame_is_made_up() -> None:
    """fbank gives 98 frames of a second, and CMVN a mean of zero that repeated frames would make a signal."""
    pytest.importorskip("s3prl")
    wavs = [torch.randn(16_000), torch.randn(24_000)]
    states = Encoder(load_upstream("fbank")).encode(wavs)
    assert [clip.shape[1] for clip in states] == [98, 148]
    for clip in states:
        assert float(clip.mean(dim=1).abs().max()) < 1e-4 < 1e-2 * float(clip.abs().max())

    class Short(Spectral):  # one frame fewer than round(T / stride), as HuBERT's convolutions
        def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
            return {"hidden_states": [state[:, :-1] for state in super().forward(wavs)["hidden_states"]]}

    foreign = Encoder(ForeignUpstream(Short(), "imported"))
    assert [clip.shape[1] for clip in foreign.encode([torch.randn(n) for n in (16_000, 8_000)])] == [49, 25]


def test_a_head_that_needs_frames_is_not_given_means(corpus: Path, tmp_path: Path) -> None:
    task = short_task("sid")
    task.head = lambda dim: torch.nn.Sequential(torch.nn.Linear(dim, 3), torch.nn.ReLU())  # type: ignore[method-assign]
    with pytest.raises(SslbenchError, match="sid: its head is no MeanHead"):
        run(task, Spectral(), settings(corpus, tmp_path))


def test_random_weights_are_said_and_refused_at_full(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream = Spectral()
    upstream.weights = "random"
    with pytest.raises(SslbenchError, match=r"fake: has random weights; .* --random_weights"):
        run(short_task("sid"), upstream, settings(corpus, tmp_path, tier="full"))
    assert "weights: random" in capsys.readouterr().err
    assert run(short_task("sid"), upstream, settings(corpus, tmp_path)).weights == "random"
    how = settings(corpus, tmp_path / "asked", tier="full", random_weights=True)
    assert run(short_task("sid"), upstream, how).weights == "random"


def test_upstream_is_frozen_in_true_eval() -> None:
    upstream = Spectral()
    upstream.dropout = torch.nn.Linear(2, 2)
    encoder = Encoder(upstream.train())
    assert not upstream.training
    assert not any(parameter.requires_grad for parameter in upstream.parameters())
    states = encoder.encode([torch.randn(1000)])
    assert states[0].shape == (2, 3, 96)  # round(1000 / 320) frames


def test_weighted_sum_is_s3prls() -> None:
    pytest.importorskip("s3prl")
    from s3prl.upstream.interfaces import Featurizer

    states = torch.randn(3, 2, 7, 5)
    ours, theirs = WeightedSum(3), Featurizer.__new__(Featurizer)
    torch.nn.Module.__init__(theirs)
    weights = torch.randn(3)
    theirs.layer_num, theirs.normalize, theirs.weights = 3, False, torch.nn.Parameter(weights.clone())
    ours.weights.data.copy_(weights)
    torch.testing.assert_close(ours(states), theirs._weighted_sum(list(states)))
    ours.weights.data[0] += 0.5  # control
    assert not torch.allclose(ours(states), theirs._weighted_sum(list(states)))


def test_limited_spreads_over_speakers_and_is_nested(corpus: Path) -> None:
    examples = short_task("sid").prepare(corpus)["train"]
    small, large = limited(examples, 4 * 0.48 / 3600, 0), limited(examples, 12 * 0.48 / 3600, 0)
    assert {e.speaker for e in small} == {f"spk{k}" for k in range(4)}
    assert {e.id for e in small} < {e.id for e in large}
    assert limited(examples, None, 0) == examples


def test_batches_cover_every_example_once_per_epoch() -> None:
    stream = batches(10, 4, seed=0)
    assert sorted(i for _ in range(5) for i in next(stream)) == sorted(2 * list(range(10)))


def test_corpus_without_sessions_or_splits(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"c{i}.wav", i, i % 2) for i in range(60)]
    write_corpus(tmp_path / "m", "flat", {"train-clean-100": clips}, synthetic=True)
    assert run(short_task("sid"), Spectral(), settings(tmp_path / "m", tmp_path)).metrics["acc"].value > 80
    with pytest.raises(SslbenchError, match="no split 'dev-clean'"):
        run(short_task("pr"), Spectral(), settings(tmp_path / "m", tmp_path))
