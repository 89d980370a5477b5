"""`sslbench data` as it is typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslbench import registry
from sslbench.cli import main


def test_prepare_and_show_print_the_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", np.full(16_000, 0.1), 16_000)
    (tmp_path / "bad.wav").write_text("text")
    out = str(tmp_path / "out")
    assert main(["data", "prepare", "folder", "--root", str(tmp_path), "--out", out, "--jobs", "2"]) == 0
    assert main(["data", "show", out]) == 0
    shown = capsys.readouterr().out
    assert shown.count("(real)") == 2
    assert "train" in shown
    assert "1 recordings left out" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "mimi", "--root", "a", "--out", "b"], "no corpus named 'mimi'; did you mean mini?"),
        (
            ["prepare", "folder", "--root", "a", "--out", "b", "--jobs", "0"],
            "--jobs: must be at least 1, not 0",
        ),
        (["show", "nowhere"], "nowhere: is not a prepared corpus"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["--help"], *([verb, "--help"] for verb in ("prepare", "show", "audit", "shar"))]
)
def test_help_has_examples(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", *words])
    assert "examples:\n  sslbench data" in capsys.readouterr().out


def test_every_corpus_can_be_loaded() -> None:
    names = {entry.name for entry in registry.corpora()}
    assert {"mini", "folder", "kaldi", "librilight", "librispeech", "mini_librispeech"} <= names
    assert all(callable(entry.load()) for entry in registry.corpora())
