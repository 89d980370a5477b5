"""How options are spelt: underscores, dashes understood, one default tier."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sslbench.cli import VERBS, main, underscored
from sslbench.cli._parser import Parser
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
