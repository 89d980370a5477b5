"""Decoding as a user runs it: interrupted, with beams, with a language model; units beside characters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sslbench.cli import main
from sslbench.errors import SslbenchError
from sslbench.finetune import decode as module
from sslbench.finetune.config import FinetuneConfig, resolve
from sslbench.finetune.decode import decode
from sslbench.finetune.decoders.choose import DecodeSettings
from sslbench.finetune.experiment import load_experiment
from sslbench.finetune.search import finetune
from sslbench.finetune.vocab import BpeVocab, PhoneVocab, Vocab, build_vocab
from sslbench.integrations import k2
from sslbench.io import read_json, read_jsonl, write_json

Make = Callable[..., FinetuneConfig]


@pytest.mark.parametrize("unit", ["char", "bpe", "phone"])
def test_vocabularies_come_back_as_saved(tmp_path: Path, unit: str) -> None:
    if unit == "bpe":
        pytest.importorskip("sentencepiece")
    texts = ["ABC CAB É", "CAB ABBA", "ABC"]
    vocab = build_vocab(unit, texts, 14)
    vocab.save(tmp_path / "vocab.json")
    again = Vocab.load(tmp_path / "vocab.json")
    assert type(again) is type(vocab)
    assert again.symbols == vocab.symbols
    assert all(again.decode(vocab.encode(text)) == text for text in texts)
    assert again.encode("ABC X") == vocab.encode("ABC") + ([1] if unit == "char" else vocab.encode("X"))
    assert sum(again.unknown.values()) == 1
    assert again.scored == ("phone" if unit == "phone" else "word")
    assert 0 not in vocab.encode(texts[0])


def test_word_pieces_without_their_model_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    BpeVocab.from_texts(["ABC CAB"] * 3, 10).save(tmp_path / "vocab.json")
    (tmp_path / "bpe.model").write_bytes(b"other")
    with pytest.raises(SslbenchError, match=r"not the model that .* was written with"):
        Vocab.load(tmp_path / "vocab.json")
    with pytest.raises(SslbenchError, match="change bpe_size"):
        BpeVocab.from_texts(["ABC CAB"] * 3, 5000)
    with pytest.raises(SslbenchError, match="have no phones"):
        PhoneVocab.from_texts([""])


def test_an_interrupted_decoding_goes_on(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(steps=20, eval_every_steps=20, max_duration_s=2.0)
    finetune(config)
    run = load_experiment(config.exp_dir)
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    decode(run, config.train_manifest, whole)
    original = module.transcribe
    asked: list[int] = []

    def cut_short(*args: object) -> Iterator[tuple[str, str]]:
        asked.append(len(args[2].cuts))  # type: ignore[attr-defined]
        for number, found in enumerate(original(*args)):  # type: ignore[arg-type]
            if number == 5 and len(asked) == 1:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(module, "transcribe", cut_short)
    with pytest.raises(KeyboardInterrupt):
        decode(run, config.train_manifest, parts)
    with parts.with_name("parts.jsonl.part").open("a") as stream:
        stream.write('{"id": "torn')
    decode(run, config.train_manifest, parts)
    assert asked == [24, 19]
    assert list(read_jsonl(parts)) == list(read_jsonl(whole))


def test_partial_results_are_used_only_for_the_same_search(make_config: Make, tmp_path: Path) -> None:
    config = make_config(steps=2, eval_every_steps=2)
    finetune(config)
    run, out = load_experiment(config.exp_dir), tmp_path / "h.jsonl"
    decode(run, config.dev_manifest, out)
    expected = list(read_jsonl(out))
    part = out.with_name("h.jsonl.part")
    assert not part.exists()
    facts = read_json(tmp_path / "h.meta.json")
    assert facts["decoder"] == "greedy CTC"
    assert facts["rtf"] > 0
    write_json(part, {"key": "another"})
    decode(run, config.dev_manifest, out)
    assert list(read_jsonl(out)) == expected


def test_beam_and_language_model_from_the_command_line(
    make_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    config = make_config(steps=60, eval_every_steps=30)
    finetune(config)
    arpa, hyp = str(tmp_path / "lm.arpa"), str(tmp_path / "hyp.jsonl")
    assert main(["lm", config.train_manifest, "--order", "2", "--out", arpa]) == 0
    command = ["decode", config.exp_dir, "--manifest", config.dev_manifest, "--out", hyp]
    assert main([*command, "--lm", arpa, "--lm_weight", "0.5"]) == 0
    assert "word n-grams" in read_json(tmp_path / "hyp.meta.json")["decoder"]
    words = {word for row in read_jsonl(hyp) for word in row["text"].split()}
    assert words <= set(Path(arpa).read_text().split())
    assert main([*command, "--beam", "4"]) == 0
    assert read_json(tmp_path / "hyp.meta.json")["decoder"] == "CTC prefix beam 4"
    row = ["--system", "x", "--results", str(tmp_path / "r"), "--tier", "smoke"]
    assert main(["score", config.dev_manifest, hyp, *row]) == 0
    methods = read_json(tmp_path / "r" / "x" / "asr.json")["methods"]
    assert methods["text_normaliser"] == "upper"
    assert methods["decoder"] == "CTC prefix beam 4"
    assert methods["tune"] == "frozen"
    capsys.readouterr()
    assert main([*command, "--by", "transducer"]) == 2
    assert "has no transducer" in capsys.readouterr().err
    assert main([*command, "--beam", "0"]) == 2


def test_transducer_trains_decodes_and_says_which_loss(make_config: Make, tmp_path: Path) -> None:
    config = make_config(objective="joint", steps=12, eval_every_steps=12)
    done = finetune(config)
    run = load_experiment(config.exp_dir)
    assert run.config.transducer_loss == ("pruned" if k2.available() else "full")
    rows = [row for row in read_jsonl(Path(config.exp_dir) / "log.jsonl") if "loss" in row]
    assert all(row["ctc_loss"] > 0 for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]
    decode(run, config.dev_manifest, tmp_path / "t.jsonl", settings=DecodeSettings("transducer", 3))
    decode(run, config.dev_manifest, tmp_path / "c.jsonl", settings=DecodeSettings("ctc"))
    assert done["params_trainable"] > 0
    only = finetune(
        make_config(objective="transducer", steps=2, eval_every_steps=2, exp_dir=config.exp_dir + "2")
    )
    assert only["params_trainable"] < done["params_trainable"]
    alone = load_experiment(config.exp_dir + "2")
    with pytest.raises(SslbenchError, match="without CTC"):
        decode(alone, config.dev_manifest, tmp_path / "x.jsonl", settings=DecodeSettings("ctc"))
    if not k2.available():
        with pytest.raises(SslbenchError, match="pruned needs k2"):
            resolve(make_config(objective="transducer", transducer_loss="pruned"))
