"""The feature cache: its shards, its number formats, what it does when the corpus changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lhotse import MonoCut, Recording
from official_layouts import speech_commands, tone
from probe_fakes import Spectral, make_corpus

from sslbench.cli import main
from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.probe import shards
from sslbench.probe.encoder import Encoder
from sslbench.probe.jobs import child_words, shard_of
from sslbench.probe.plan import Plan, audio_digest, identity, make_plan
from sslbench.probe.runner import Named, ProbeSettings, run_task
from sslbench.probe.store import CachedStore
from sslbench.probe.task import Example, load_task


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_DURATION_S", 5.0)


def cached(
    folder: Path, root: Path, upstream: torch.nn.Module, precision: str = "fp32", key: str = "k"
) -> CachedStore:
    examples = load_task("pr", "smoke").prepare(root)["dev"]
    return CachedStore(folder, examples, Encoder(upstream), False, key, precision=precision)


@pytest.mark.usefixtures("small_shards")
def test_a_killed_pass_goes_on_at_the_first_missing_shard(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus")
    whole = cached(tmp_path / "c", root, Spectral())
    paths = sorted((tmp_path / "c").glob("*.safetensors"))
    assert len(paths) > 3
    expected = [whole.clip(n).clone() for n in range(48)]
    stamps = {path: path.stat().st_mtime_ns for path in paths[1:]}
    paths[0].unlink()
    upstream = Spectral()
    again = cached(tmp_path / "c", root, upstream)
    assert upstream.calls == 2  # the probe of its shape, and one shard
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    for n, values in enumerate(expected):
        assert torch.equal(again.clip(n), values)
    paths[0].write_bytes(paths[0].read_bytes()[:40])
    with pytest.raises(CorruptFileError, match=r"00000.safetensors: is damaged .* remove it"):
        cached(tmp_path / "c", root, Spectral())


def test_half_precision_halves_the_disk_and_is_close(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", speakers=2, per_session=2)
    stores = {p: cached(tmp_path / p, root, Spectral(), p) for p in ("fp32", "fp16", "bf16")}
    sizes = {p: sum(f.stat().st_size for f in (tmp_path / p).glob("*.safetensors")) for p in stores}
    for precision, limit in (("fp16", 1e-3), ("bf16", 1e-2)):
        assert sizes[precision] < 0.52 * sizes["fp32"]
        error = (stores[precision].clip(0) - stores["fp32"].clip(0)).abs().max()
        assert 0 < float(error) <= limit * float(stores["fp32"].clip(0).abs().max())


def test_features_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    class Huge(Spectral):
        def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
            return {"hidden_states": [1e6 * state for state in super().forward(wavs)["hidden_states"]]}

    root = make_corpus(tmp_path / "corpus", speakers=2, per_session=1)
    with pytest.raises(SslbenchError, match="features exceed float16; use --cache_precision bf16"):
        cached(tmp_path / "c", root, Huge(), "fp16")


def test_a_changed_corpus_is_noticed(tmp_path: Path) -> None:
    """Same names, same lengths, other sound: neither old features nor old results are used."""
    root = speech_commands(tmp_path / "sc")
    task = load_task("ks", "smoke")
    task.protocol = replace(task.protocol, steps=10, eval_every=10, lr_grid=[1e-2])
    settings = ProbeSettings(root, tmp_path / "exp", tmp_path / "results", keep_cache=True)
    first = run_task(task, Spectral, Named("fake", "fake"), settings)
    before = audio_digest(make_plan(task, root, 0).examples)
    for path in (root / "speech_commands_v0.01" / "yes").iterdir():
        path.touch()
    assert audio_digest(make_plan(task, root, 0).examples) == before  # a newer date is not another sound
    for path in (root / "speech_commands_v0.01" / "yes").iterdir():
        tone(path, 4321, 0.3)
    assert audio_digest(make_plan(task, root, 0).examples) != before
    with pytest.raises(SslbenchError, match="holds a run with another data"):
        run_task(task, Spectral, Named("fake", "fake"), settings)
    second = run_task(task, Spectral, Named("fake", "fake"), replace(settings, exp=tmp_path / "exp2"))
    assert first.provenance.data_sha256 != second.provenance.data_sha256


def test_changed_parts_of_a_mixture_are_noticed(tmp_path: Path) -> None:
    """Every file of a mixture counts, and what the cut makes of it; where the files lie does not."""

    def digests(folder: Path, noise_hz: float, snr: float) -> tuple[str, str]:
        tone(folder / "speech.wav", 500, 1.0)
        tone(folder / "noise.wav", noise_hz, 1.0)
        speech, noise = (
            MonoCut(name, 0, 1.0, 0, recording=Recording.from_file(folder / f"{name}.wav"))
            for name in ("speech", "noise")
        )
        mixed = speech.mix(noise, snr=snr, preserve_id="left")
        example = Example(mixed, 0, "x", "s")
        task = load_task("sid", "smoke")
        known = identity(task, Plan([example], {"": {"test": [0]}}), audio_digest([example]), [1e-2])
        return audio_digest([example]), known["data"]

    first = digests(tmp_path / "a", 900, 10)
    assert digests(tmp_path / "b", 900, 10) == first
    assert digests(tmp_path / "c", 905, 10)[0] != first[0]
    louder = digests(tmp_path / "d", 900, 5)
    assert louder[0] == first[0]
    assert louder[1] != first[1]


def test_other_code_under_the_same_weights_is_noticed(tmp_path: Path) -> None:
    """As little as a thread's rounding is not: the run goes on under its first key."""

    def scaled(by: float) -> Spectral:
        upstream = Spectral()
        forward = upstream.forward
        upstream.forward = lambda wavs: {"hidden_states": [by * s for s in forward(wavs)["hidden_states"]]}  # type: ignore[method-assign]
        return upstream

    root = speech_commands(tmp_path / "sc")
    task = load_task("ks", "smoke")
    task.protocol = replace(task.protocol, steps=10, eval_every=10, lr_grid=[1e-2])
    settings = ProbeSettings(root, tmp_path / "exp", tmp_path / "results", keep_cache=True)
    run_task(task, Spectral, Named("fake", "fake"), settings)
    run = (tmp_path / "exp" / "ks" / "run.json").read_text()
    run_task(task, lambda: scaled(1 + 1e-5), Named("fake", "fake"), settings)
    assert (tmp_path / "exp" / "ks" / "run.json").read_text() == run
    with pytest.raises(SslbenchError, match="holds a run with another outputs"):
        run_task(task, lambda: scaled(1.01), Named("fake", "fake"), settings)


def test_hopeless_learning_rates_stop_early_but_never_in_full(tmp_path: Path) -> None:
    root = speech_commands(tmp_path / "sc")
    found = {}
    for tier in ("smoke", "full"):
        task = load_task("ks", tier)
        task.protocol = replace(task.protocol, steps=80, eval_every=5, lr_grid=[1e-2, 1e-7], early_stop=True)
        exp = tmp_path / tier
        row = run_task(task, Spectral, Named("f", "f"), ProbeSettings(root, exp, tmp_path / "r", tier))  # type: ignore[arg-type]
        assert row.search is not None
        assert row.search.lr == 1e-2
        found[tier] = (exp / "ks" / "lr-1e-07" / "done.json").read_text()
    assert '"stopped_at": 20' in found["smoke"]
    assert '"stopped_at": null' in found["full"]


def test_rows_say_half_precision(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", speakers=2, per_session=2)
    task = load_task("pr", "smoke")
    task.protocol = replace(task.protocol, steps=3, eval_every=3, lr_grid=[1e-2])
    settings = ProbeSettings(root, tmp_path / "exp", tmp_path / "r", precision="bf16", cache_precision="fp16")
    row = run_task(task, Spectral, Named("f", "f"), settings)
    assert (row.cost["upstream_bits"], row.cost["features_bits"]) == (16, 16)


def test_job_arrays_and_children() -> None:
    names = list("abcdefg")
    assert sorted(n for k in range(3) for n in shard_of(names, 3, k)) == names
    with pytest.raises(SslbenchError, match="numbered from 0"):
        shard_of(names, 3, 3)
    words = ["superb", "run", "--tasks", "a,b", "--jobs=2", "--device", "cuda:0,cuda:1", "--out", "x"]
    assert child_words(words, "b", "cuda:1") == [
        "superb",
        "run",
        "--out",
        "x",
        "--tasks",
        "b",
        "--device",
        "cuda:1",
    ]


def test_options_have_no_short_forms(capsys: pytest.CaptureFixture[str]) -> None:
    """A child of `superb run --job 3` would start children itself, without end."""
    words = ["superb", "run", "--upstream", "fbank", "--tasks", "ks", "--out", "x", "--results", "x"]
    with pytest.raises(SystemExit):
        main([*words, "--job", "3"])
    assert "unrecognized arguments: --job 3" in capsys.readouterr().err
    assert main(["finetune", "--upstrea", "fbank"]) == 2
    assert "unrecognized arguments: --upstrea" in capsys.readouterr().err
