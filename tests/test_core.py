"""Registry, configuration, checkpoints and the command line: errors name the mend."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from sslbench import config, provenance, registry
from sslbench.checkpoint import UpstreamCheckpoint, load_strict
from sslbench.cli import VERBS, main
from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.nn.upstream import weights_of
from sslbench.progress import Progress
from sslbench.upstreams import load_upstream

EXPERT = """
import torch
class Expert(torch.nn.Module):
    def __init__(self, ckpt=None, **kwargs):
        super().__init__()
        self.layer, self.drop = torch.nn.Linear(320, 8), torch.nn.Dropout(0.5)
    def get_downsample_rates(self, key):
        return 320
    def forward(self, wavs):
        audio = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        return {"hidden_states": [self.drop(self.layer(audio.unfold(1, 320, 320)))]}  # one frame short
"""


@dataclass
class Inner:
    """Inner settings."""

    dim: int = 3
    """Width."""


@dataclass
class Settings:
    """Outer settings."""

    inner: Inner = field(default_factory=Inner)
    """Nested."""
    lr: float = 0.1
    """Rate."""
    kernels: tuple[int, ...] = (1, 2)
    """Sizes."""


def test_config_round_trip_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("inner: {dim: 5}\nkernels: [3, 4]\n")
    loaded = config.load(Settings, tmp_path / "c.yaml")
    assert loaded == Settings(Inner(5), 0.1, (3, 4))
    assert config.build(Settings, config.to_dict(loaded), "copy") == loaded
    words = ["--config", str(tmp_path / "c.yaml"), "--lr", "1e-3", "--inner.dim", "7"]
    assert config.parse(Settings, words, "p", "d") == Settings(Inner(7), 1e-3, (3, 4))


@pytest.mark.parametrize("values", [{"innr": {}}, {"inner": {"dm": 1}}, {"lr": "fast"}, {"kernels": 3}])
def test_config_errors_name_the_file_and_the_key(values: dict[str, object]) -> None:
    with pytest.raises(SslbenchError, match=r"conf.yaml: .*(innr|dm|lr|kernels)"):
        config.build(Settings, values, "conf.yaml")


def test_registry_refuses_collisions_and_suggests_names() -> None:
    entry = registry.Entry("a", "m:x", "f", "plugin")
    with pytest.raises(SslbenchError, match="registered twice"):
        registry.Registry("upstream", [entry, registry.Entry("a", "m:y", "f", "plugin")])
    with pytest.raises(SslbenchError, match="did you mean zipformer_tiny"):
        registry.upstreams()["zipfomer_tiny"]


def test_every_registered_name_has_an_entry_point_function() -> None:
    for entry in registry.upstreams():
        assert callable(entry.load()), entry.name


def test_a_class_in_a_file_is_an_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_code.py").write_text(EXPERT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    upstream = load_upstream("their_code:Expert").train()
    wavs = [torch.randn(1000), torch.randn(700)]
    first, second = (upstream(wavs)["hidden_states"][0] for _ in range(2))
    assert first.shape == (2, 4, 8)  # ceil(1000 / 320), though the class emits 3
    assert torch.equal(first, second)  # frozen: train() did not switch dropout on
    assert (first[1, 3] == 0).all()  # 700 samples have 3 frames
    with pytest.raises(SslbenchError, match="cannot load their_code:Nothing"):
        load_upstream("their_code:Nothing")


def test_a_plain_expert_behind_an_entry_point_is_frozen_and_says_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain_code.py").write_text(EXPERT.replace(", **kwargs", ""))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("plain_plugin", "plain_code:Expert", "sslbench.upstreams")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    upstream, free = (load_upstream("plain_plugin", frozen=frozen).train() for frozen in (True, False))
    assert weights_of(upstream) == ("random", None)
    assert (upstream.training, free.training) == (False, True)
    assert not any(parameter.requires_grad for parameter in upstream.parameters())
    assert upstream([torch.randn(1000)])["hidden_states"][0].shape == (1, 4, 8)
    assert weights_of(load_upstream("plain_plugin", ckpt="mine.pt"))[0] == "imported"
    assert main(["check", "plain_plugin"]) == 1  # judged as it is: a frame is missing
    assert "Judged as it is" in capsys.readouterr().out


def test_checkpoints_are_checked_and_load_strictly(tmp_path: Path) -> None:
    state = {"weight": torch.randn(2, 3), "bias": torch.zeros(2)}
    UpstreamCheckpoint("family", {"dim": 3}, state, "trained", {"steps": 5}).save(tmp_path)
    found = UpstreamCheckpoint.load(tmp_path)
    assert found.config == {"dim": 3}
    assert found.card["steps"] == 5
    load_strict(torch.nn.Linear(3, 2), found.state, "here")
    with pytest.raises(SslbenchError, match=r"here: .*weight is \(2, 3\), expected \(2, 4\)"):
        load_strict(torch.nn.Linear(4, 2), found.state, "here")
    with pytest.raises(SslbenchError, match="missing bias"):
        load_strict(torch.nn.Linear(3, 2), {"weight": state["weight"]}, "here")
    damaged = bytearray((tmp_path / "model.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(damaged))
    with pytest.raises(CorruptFileError, match="does not match its sha256"):
        UpstreamCheckpoint.load(tmp_path)
    with pytest.raises(SslbenchError, match="is no upstream checkpoint"):
        UpstreamCheckpoint.load(tmp_path / "nowhere")


def test_random_weights_are_said_and_repeatable() -> None:
    with pytest.warns(UserWarning, match="weights are RANDOM"):
        first = load_upstream("zipformer_tiny")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        second, other = load_upstream("zipformer_tiny"), load_upstream("zipformer_tiny", seed=1)
    wav = [torch.randn(4000)]
    features = [u(wav)["last_hidden_state"] for u in (first, second, other)]
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[2])


def test_every_verb_has_help_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        assert "examples:" in capsys.readouterr().out, verb


def test_wrong_words_exit_with_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["pretrian"], ["check", "nope_tiny"], ["report", "nowhere", "--out", "x"]):
        assert main(words) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("sslbench: error: ")
        assert "\n" not in error


def test_a_closed_terminal_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Gone())
    with Progress("work", 2) as progress:
        progress.advance(2)
    assert progress.done == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plan DIR/text", "text: expected 'key: value' lines"),
        ("plan DIR", "Is a directory"),
        ("plan DIR/plan.yaml --batch_s 0", "--batch_s, --hours and --max_steps must be above 0"),
        ("plan DIR/plan.yaml --batch_s 0.001", "--batch_s must be at least 1"),
        ("pretrain --config DIR/torn.yaml", "sslbench pretrain: "),
        ("pretrain --config DIR/typo.yaml", "'max_step' is not accepted; did you mean max_steps"),
        ("check zipformer_tiny --ckpt DIR/ckpt", "card.yaml: lacks weights; export or convert it again"),
        ("check os:path", "os:path: is no class or function that builds an upstream"),
        ("units merge --out DIR/a.jsonl.gz --num_shards 0", "--num_shards must be at least 1"),
        ("units apply --units u --manifest m --out DIR/a.gz --num_shards 0", "--jobs must be at least 1"),
        ("extract zipformer_tiny DIR/text --out DIR/f.npz --device gpu", "called 'gpu'"),
        (
            "units fit --feature zipformer_tiny:1 --device gpu --manifest m --clusters 5 --out o",
            "called 'gpu'",
        ),
        (
            "units fit --feature mfcc --manifest DIR/rows.jsonl --clusters 5 --out DIR/o",
            "holds rows, not cuts",
        ),
        ("lm DIR/binary.txt --out DIR/o", "binary.txt: is no UTF-8 text"),
    ],
)
def test_wrong_input_is_one_line(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "text": "only words", "torn.yaml": "a: [1,\n", "typo.yaml": "max_step: 3\n",
        "rows.jsonl": '{"a": 1}\n', "plan.yaml": "upstream: zipformer_tiny\n",
        "ckpt/model.safetensors": "", "ckpt/card.yaml": "",
        "ckpt/config.yaml": "family: zipformer\nmodel: {}\n",
    }  # fmt: skip
    (tmp_path / "ckpt").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    assert main(words.replace("DIR", str(tmp_path)).split()) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert len(said) == 1
    assert message in said[0]


def test_a_report_leaves_the_code_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports write RESULTS.md, which is in the repository; rows made after one are of the same code."""
    results = tmp_path / "egs" / "mini" / "ssl1" / "RESULTS.md"
    package = tmp_path / "sslbench"
    for path in (results, package / "provenance.py"):
        path.parent.mkdir(parents=True)
        path.write_text("first")
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    results.write_text("second")
    commit, dirty = provenance._git_state()
    assert (len(commit), dirty) == (40, False)
    (package / "provenance.py").write_text("second")
    assert provenance._git_state() == (commit, True)
