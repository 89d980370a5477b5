"""How options are spelt: underscores, dashes understood, one default tier."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sslbench import cli, registry
from sslbench.cli import VERBS, main, underscored
from sslbench.cli._parser import Parser
from sslbench.integrations.s3prl.names import s3prl_names
from sslbench.pretrain.config import PretrainConfig


class CaughtError(Exception):
    """Carries a verb's parser out of it."""


def parsers(verb: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[argparse.ArgumentParser]:
    """A verb's parser and those of its sub-verbs."""

    def caught(self: Parser, *_: Any) -> None:
        raise CaughtError(self)

    monkeypatch.setattr(Parser, "parse_known_args", caught)
    with pytest.raises(CaughtError) as found:
        main([verb])
    yield from _below(found.value.args[0])


def _below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _below(inner)


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"pretrain"}))  # its options are a dataclass's fields
def test_every_option_has_a_name_with_underscores(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for parser in parsers(verb, monkeypatch):
        for action in parser._actions:
            names = [name for name in action.option_strings if name.startswith("--")]
            assert not any("-" in name[2:] for name in names), f"{parser.prog}: {names}"


@pytest.mark.parametrize("verb", ["export", "finetune", "profile", "score", "espnet", "superb"])
def test_a_row_claims_nothing_by_default(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiers = [
        action.default
        for parser in parsers(verb, monkeypatch)
        if "check" not in parser.prog  # which writes no row
        for action in parser._actions
        if action.dest == "tier"
    ]
    assert tiers == ["smoke"]


def test_dashes_are_understood_in_options_alone() -> None:
    assert underscored(["--log-dir=a-b", "--keep-order"]) == ["--log_dir=a-b", "--keep_order"]
    assert underscored(["--log-dir", "./log-dir", "-x-y"]) == ["--log_dir", "./log-dir", "-x-y"]
    assert underscored(["--a-b", "--", "--a-b"]) == ["--a_b", "--", "--a-b"]  # the last is another program's


def test_a_path_is_no_option(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["superb", "check", "--tasks", "ks", "--data", "./data"]) == 1
    assert "no such data folder: data" in capsys.readouterr().out
    assert main(["finetune", "--exp-dir", "./system", "--steps", "-1"]) == 2
    assert "steps" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # refused before anything is made


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["--allow-reshard"], True),
        (["--allow_reshard", "--seed", "1"], True),
        (["--allow_reshard", "false"], False),
        ([], False),
    ],
)
def test_resharding_is_a_switch_and_a_setting(
    words: list[str], allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sslbench.pretrain import trainer

    seen: list[PretrainConfig] = []
    monkeypatch.setattr(trainer, "run", lambda config: seen.append(config) or 0)
    assert (
        main(["pretrain", "--upstream", "zipformer_tiny", "--train_manifest", "t", "--exp_dir", "e", *words])
        == 0
    )
    assert seen[0].allow_reshard is allowed


def test_no_steps_cannot_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "conf.yaml", "--ngpu", "2", "--max_steps", "0"]) == 2
    assert "--max_steps must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "superb run --upstream fbank --tasks sid --data . --out o --results r",
        "finetune --test_manifest t --results r",
        "score ref.trn hyp.trn --results r",
        "export exp --out o --results r",
        "espnet asr --upstream fbank --train t --dev d --test e --out o --results r",
        "plan conf.yaml --results r",
        "profile fbank --results r",
    ],
)
def test_a_label_that_no_row_takes_is_refused_before_the_work(
    words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf.yaml").write_text("upstream: zipformer_tiny\n")
    assert main([*words.split(), "--system", "a/b"]) == 2
    assert "--system 'a/b': letters, digits" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["conf.yaml"]


def test_an_evaluation_that_no_row_takes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "r.trn", "h.trn", "--system", "a", "--results", "r", "--evaluation", "ASR"]) == 2
    assert "--evaluation 'ASR': small letters" in capsys.readouterr().err


NAMED = re.compile(
    r"--upstream (\S+)|--feature (\S+):\S+|sslbench (?:check|extract|profile) ((?:\w+ )*\w+)(?=\s)"
)


def upstreams_in(text: str) -> set[str]:
    """The upstream names in some examples."""
    return {name for found in NAMED.findall(text.replace("\\\n", " ")) for name in " ".join(found).split()}


def test_examples_name_upstreams_that_there_are() -> None:
    pytest.importorskip("s3prl")
    known = {*(entry.name for entry in registry.upstreams()), *s3prl_names()}
    names = [path.stem for path in Path(cli.__file__).parent.glob("[!_]*.py")]
    modules = [import_module(f"sslbench.cli.{name}") for name in names]
    texts = [text for module in modules for text in vars(module).values() if "examples:" in str(text)]
    found = {name for text in texts for name in upstreams_in(text)}
    assert {"zipformer_tiny", "fbank", "hubert_k2ssl", "wavlm_base"} <= found
    assert found <= known, found - known
    assert upstreams_in("sslbench profile zipformer_tiny hubert_tiny --json") - known == {"hubert_tiny"}
