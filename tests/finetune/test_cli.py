"""The three verbs as a user types them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sslbench.cli import main
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.search import finetune
from sslbench.io import read_json, read_jsonl, write_yaml

from .conftest import words, write_split


@pytest.mark.parametrize("verb", ["finetune", "decode", "score"])
def test_help_shows_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert f"sslbench {verb} " in capsys.readouterr().out.split("examples:")[1]


def test_finetune_decode_score(
    make_config: Callable[..., FinetuneConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sslbench import config as configs

    config = make_config(steps=2, eval_every_steps=2)
    test = str(write_split(tmp_path, "test", words(4, seed=1)))
    values = {key: value for key, value in configs.to_dict(config).items() if key not in ("exp_dir", "lr")}
    write_yaml(tmp_path / "c.yaml", values)
    exp, out = str(tmp_path / "e"), str(tmp_path / "hyp.jsonl")
    row = ["--system", "tones", "--results", str(tmp_path / "r"), "--tier", "smoke"]
    command = ["finetune", "--config", str(tmp_path / "c.yaml"), "--exp_dir", exp, "--lr", "0.003"]
    assert main([*command, "--test_manifest", test, *row]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"cost: 0\.\d+ M trainable parameters, \d\.\d+ s per step, peak memory \d+\.\d+ GiB", said
    )
    direct = read_json(tmp_path / "r" / "tones" / "asr.json")
    assert main(["decode", exp, "--manifest", test, "--out", out]) == 0
    assert list(read_jsonl(out)) == list(read_jsonl(Path(exp) / "hyp" / "test.jsonl"))
    (tmp_path / "r" / "tones" / "asr.json").unlink()
    assert main(["score", test, out, *row]) == 0
    again = read_json(tmp_path / "r" / "tones" / "asr.json")
    assert again["metrics"]["wer"] == direct["metrics"]["wer"]
    assert "lr: 0.003" in (Path(exp) / "config.yaml").read_text()
    assert (tmp_path / "hyp.errors.txt").is_file()
    # text files have no origin, so they are scored but make no row
    (tmp_path / "text").write_text("".join(f"{r['id']} {r['text']}\n" for r in read_jsonl(out)))
    assert main(["score", test, str(tmp_path / "text")]) == 0
    capsys.readouterr()
    assert main(["score", test, str(tmp_path / "text"), *row]) == 2
    assert "transcribe with 'sslbench decode'" in capsys.readouterr().err
    assert main([*command, *row]) == 2
    assert "needs --test_manifest" in capsys.readouterr().err
    assert main([*command, "--test_manifest", config.dev_manifest, *row]) == 2
    assert "holds the data of --dev_manifest" in capsys.readouterr().err


def test_a_row_is_of_what_was_transcribed(
    make_config: Callable[..., FinetuneConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(steps=1, eval_every_steps=1, seed=3)
    finetune(config)
    hyp, saved = str(tmp_path / "hyp.jsonl"), tmp_path / "r" / "tones" / "asr.json"
    row = ["--system", "tones", "--results", str(tmp_path / "r"), "--seed", "7"]
    assert main(["decode", config.exp_dir, "--manifest", config.dev_manifest, "--out", hyp]) == 0
    corrected = write_split(tmp_path / "corrected", "dev", ["AB"] * 6)
    (tmp_path / "text").write_text("".join(f"dev-{number} AB\n" for number in range(6)))
    for other in (corrected, tmp_path / "text"):
        capsys.readouterr()
        assert main(["score", str(other), hyp, *row]) == 2
        said = capsys.readouterr()
        assert "WER" in said.out
        assert "no row, since" in said.err
        assert not saved.exists()
    assert main(["score", config.dev_manifest, hyp, *row]) == 0
    assert read_json(saved)["provenance"]["seed"] == 3  # the training's; 7 drew the intervals
