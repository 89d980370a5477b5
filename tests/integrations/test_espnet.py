"""ESPnet reads our manifests rightly, and its own programs train and decode with our upstreams."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

from sslbench.checkpoint import UpstreamCheckpoint
from sslbench.config import to_dict
from sslbench.data.manifests import open_manifest, write_manifest
from sslbench.errors import SslbenchError
from sslbench.finetune.vocab import BpeVocab
from sslbench.integrations.espnet.asr import word_pieces
from sslbench.integrations.espnet.claim import HERE
from sslbench.integrations.espnet.export import export, utterance_id
from sslbench.report.predictions import read_items
from sslbench.report.store import load
from sslbench.upstreams import build_model

TINY_TRAINING = """
encoder: rnn
encoder_conf: {rnn_type: lstm, num_layers: 1, hidden_size: 32, output_size: 32, subsample: [1]}
normalize: utterance_mvn
freeze_param: [frontend.upstream]
model_conf: {ctc_weight: 1.0, extract_feats_in_collect_stats: false}
optim: adam
batch_type: numel
batch_bins: 400000
num_att_plot: 0
num_workers: 0
use_tensorboard: false
use_matplotlib: false
best_model_criterion: [[valid, loss, min]]
keep_nbest_models: 1
"""


def make_cut(folder: Path, name: str, speaker: str, seconds: float = 1.0, rate: int = 16_000) -> MonoCut:
    """A recording of noise with one supervision over all of it."""
    samples = np.random.default_rng(len(name)).uniform(-0.5, 0.5, int(seconds * rate)).astype("float32")
    path = folder / f"{name}.wav"
    soundfile.write(path, samples, rate)
    recording = Recording(name, [AudioSource("file", [0], str(path))], rate, len(samples), seconds)
    supervision = SupervisionSegment(name, name, 0.0, seconds, text=f"SAID {name.upper()}", speaker=speaker)
    return MonoCut(name, 0.0, seconds, 0, supervisions=[supervision], recording=recording)


def table(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


def test_export_writes_the_samples_that_the_cuts_mean(tmp_path) -> None:
    whole = make_cut(tmp_path, "b-1", "b")
    piece = make_cut(tmp_path, "a-2", "a", 2.0)
    piece.start, piece.duration, piece.supervisions[0].duration = 0.5, 0.75, 0.75
    fast = make_cut(tmp_path, "a-1", "a").perturb_speed(1.25)
    other_rate = make_cut(tmp_path, "c-1", "c", rate=8000)
    resampled = make_cut(tmp_path, "c-2", "c", rate=8000).resample(16_000)
    cuts = [whole, piece, fast, other_rate, resampled]
    write_manifest(cuts, tmp_path / "cuts.jsonl.gz")
    done = export(tmp_path / "cuts.jsonl.gz", tmp_path / "out")
    assert (done.utterances, done.saved_audio, done.skipped) == (5, 4, 0)
    wavs = table(tmp_path / "out" / "wav.scp")
    assert wavs["b-1"] == str(tmp_path / "b-1.wav"), "an untouched file needs no copy"
    assert list(wavs) == sorted(wavs)
    expected = {"a-2": piece, fast.id if fast.id.startswith("a") else f"a-{fast.id}": fast, "c-2": resampled}
    for name, cut in expected.items():
        samples, rate = soundfile.read(wavs[name], dtype="float32")
        assert rate == 16_000
        assert len(samples) == cut.num_samples
        assert np.allclose(samples, cut.load_audio()[0], atol=2**-14)
    assert soundfile.info(wavs["c-1"]).samplerate == 16_000
    assert table(tmp_path / "out" / "utt2spk")["a-2"] == "a"
    assert table(tmp_path / "out" / "spk2utt")["c"] == "c-1 c-2"
    assert table(tmp_path / "out" / "text")["b-1"] == "SAID B-1"


def test_espnets_and_kaldis_readers_return_the_cuts_samples(tmp_path) -> None:
    """What lhotse's own export loses: segments, another rate, another speed."""
    kaldiio = pytest.importorskip("kaldiio")
    sound_scp = pytest.importorskip("espnet2.fileio.sound_scp")
    segment = make_cut(tmp_path, "a-1", "a", 2.0)
    segment.start, segment.duration, segment.supervisions[0].duration = 0.5, 0.75, 0.75
    fast, slow = (make_cut(tmp_path, n, "b").perturb_speed(x) for n, x in (("b-1", 1.1), ("b-2", 0.9)))
    resampled = make_cut(tmp_path, "c-1", "c", rate=8000).resample(16_000)
    plain = make_cut(tmp_path, "d-1", "d")
    cuts = {utterance_id(c.id, c.supervisions[0].speaker): c for c in (segment, fast, slow, resampled, plain)}
    write_manifest(cuts.values(), tmp_path / "cuts.jsonl.gz")
    export(tmp_path / "cuts.jsonl.gz", tmp_path / "out")
    scp = tmp_path / "out" / "wav.scp"
    assert "|" not in scp.read_text(), "no shell pipes"
    assert not (tmp_path / "out" / "segments").exists(), "ESPnet would ignore them"
    espnets, kaldis = sound_scp.SoundScpReader(str(scp), dtype="float32"), kaldiio.load_scp(str(scp))
    assert set(espnets) == set(kaldis) == set(cuts)
    for name, cut in cuts.items():
        expected = cut.load_audio()[0]
        rate, samples = espnets[name]
        assert rate == 16_000
        assert samples.shape == expected.shape
        assert np.allclose(samples, expected, atol=2**-14), name
        rate, samples = kaldis[name]
        assert rate == 16_000
        assert np.allclose(samples / 2**15, expected, atol=2**-14), name
    # the control: the recording alone, which lhotse's own export would name, is other audio
    source, _ = soundfile.read(tmp_path / "a-1.wav", dtype="float32")
    assert not np.allclose(source[: segment.num_samples], segment.load_audio()[0], atol=2**-14)


def test_speed_perturbed_copies_join_the_originals(tmp_path) -> None:
    write_manifest([make_cut(tmp_path, "a-1", "a")], tmp_path / "cuts.jsonl.gz")
    export(tmp_path / "cuts.jsonl.gz", tmp_path / "out", speeds=(0.9, 1.1))
    wavs = table(tmp_path / "out" / "wav.scp")
    assert [soundfile.info(path).frames for path in wavs.values()] == [16_000, 17_778, 14_545]
    assert set(table(tmp_path / "out" / "text").values()) == {"SAID A-1"}
    for labels, speeds in (("units", (0.9,)), ("text", (0.0,))):
        with pytest.raises(SslbenchError, match="units fit the original speed only"):
            export(tmp_path / "cuts.jsonl.gz", tmp_path / "no", labels=labels, speeds=speeds)
    assert not (tmp_path / "no").exists()


def test_an_export_that_was_interrupted_keeps_what_it_saved(tmp_path) -> None:
    cut = make_cut(tmp_path, "a-1", "a", rate=8000)
    write_manifest([cut], tmp_path / "cuts.jsonl.gz")
    export(tmp_path / "cuts.jsonl.gz", tmp_path / "out")
    wav = tmp_path / "out" / "wav" / "a-1.wav"
    wav.write_bytes(b"kept")
    assert export(tmp_path / "cuts.jsonl.gz", tmp_path / "out").saved_audio == 1
    assert wav.read_bytes() == b"kept"
    cut.duration = cut.supervisions[0].duration = 0.5  # other samples by the same name
    write_manifest([cut], tmp_path / "cuts.jsonl.gz")
    export(tmp_path / "cuts.jsonl.gz", tmp_path / "out")
    assert soundfile.info(wav).frames == 8000


def test_units_are_cut_to_the_frames_of_espnets_front_end(tmp_path) -> None:
    cut = make_cut(tmp_path, "a-1", "a")
    cut.custom = {"kmeans": " ".join(map(str, range(50)))}
    write_manifest([cut], tmp_path / "cuts.jsonl.gz")
    export(tmp_path / "cuts.jsonl.gz", tmp_path / "out", labels="units")
    units = table(tmp_path / "out" / "text")["a-1"].split()
    assert units == [str(i) for i in range(49)]  # 1 s through kernels 10 3 3 3 3 2 2, strides 5 2 2 2 2 2 2


def test_word_pieces_are_listed_as_espnet_wants_them(tmp_path) -> None:
    pytest.importorskip("sentencepiece")
    (tmp_path / "text").write_text("u1 THE CAT SAT\nu2 THE DOG SAT ON THE CAT\n")
    listed = word_pieces(tmp_path / "text", tmp_path, 24)
    assert (listed[:2], listed[-1], len(listed)) == (["<blank>", "<unk>"], "<sos/eos>", 25)
    assert BpeVocab((tmp_path / "bpe.model").read_bytes()).symbols[2:] == listed[2:-1]


def test_export_splits_long_recordings_and_names_what_it_skips(tmp_path) -> None:
    long = make_cut(tmp_path, "talk", "s", 3.0)
    long.supervisions = [
        SupervisionSegment("s-one", "talk", 0.25, 1.0, text="ONE", speaker="s"),
        SupervisionSegment("s-two", "talk", 1.5, 0.5, text="TWO", speaker="s"),
    ]
    many = [make_cut(tmp_path, f"s-{number:03}", "s", 0.1) for number in range(250)]
    many[3].supervisions[0].text = ""
    many[4].supervisions[0].duration = 0.5  # its words are longer than its audio
    write_manifest([long, *many], tmp_path / "cuts.jsonl.gz")
    done = export(tmp_path / "cuts.jsonl.gz", tmp_path / "out")
    assert (done.utterances, done.skipped) == (250, 2)
    skipped = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert skipped[0] == {"id": "s-003", "reason": "no transcript"}
    assert "beyond" in skipped[1]["reason"]
    texts, wavs = table(tmp_path / "out" / "text"), table(tmp_path / "out" / "wav.scp")
    lengths = {
        text: soundfile.info(wavs[name]).frames for name, text in texts.items() if text in ("ONE", "TWO")
    }
    assert lengths == {"ONE": 16_000, "TWO": 8000}


def test_ids_begin_with_their_speaker_and_hold_no_space() -> None:
    assert utterance_id("1-2-3", "1") == "1-2-3"
    assert utterance_id("x", "spk") == "spk-x"
    with pytest.raises(SslbenchError, match="white space"):
        utterance_id("a b", "a")


@pytest.mark.slow
@pytest.mark.usefixtures("hook_works")
def test_espnets_own_programs_train_and_decode_with_our_upstream(mini_corpus, tmp_path, python) -> None:
    pytest.importorskip("espnet2")
    for split, count in (("train-clean-100", 24), ("dev-clean", 6), ("test-clean", 3)):
        cuts = list(open_manifest(mini_corpus / f"{split}.jsonl.gz"))[:count]
        write_manifest(cuts, tmp_path / f"{split.split('-')[0]}.jsonl.gz")
    torch.manual_seed(7)  # other weights than the name alone would have
    model = build_model("zipformer_tiny")
    UpstreamCheckpoint("zipformer", to_dict(model.config), model.state_dict()).save(tmp_path / "ckpt")
    (tmp_path / "tiny.yaml").write_text(TINY_TRAINING)
    manifests = [
        word for s in ("train", "dev", "test") for word in (f"--{s}", str(tmp_path / f"{s}.jsonl.gz"))
    ]
    command = ["-m", "sslbench", "espnet", "asr", "--upstream", "zipformer", "--ckpt", "ckpt", *manifests]
    command += [
        "--config",
        "tiny.yaml",
        "--epochs",
        "2",
        "--out",
        "exp",
        "--system",
        "zip",
        "--results",
        "res",
    ]
    done = python(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "train: espnet2.bin.asr_train" in done.stderr, "ESPnet's own program was to be used"

    exp = tmp_path / "exp"
    losses = re.findall(r"epoch results: \[train\].*? loss=([\d.]+)", (exp / "train.log").read_text())
    assert len(losses) == 2
    assert float(losses[1]) < float(losses[0])
    trained = torch.load(exp / "model" / "valid.loss.best.pth", weights_only=True)
    prefix = "frontend.upstream.upstream.model."
    ours = {key.removeprefix(prefix): value for key, value in trained.items() if key.startswith(prefix)}
    assert ours.keys() == model.state_dict().keys()
    assert all(torch.equal(value, ours[key]) for key, value in model.state_dict().items())

    row = json.loads((tmp_path / "res" / "zip" / "asr_espnet.json").read_text())
    assert row["weights"] == "trained"
    assert row["metrics"]["wer"]["n"] == 3
    assert {"sub", "del", "ins", "rtf", "cer"} <= row["metrics"].keys()
    assert {"text_normaliser", "counts", "engine"} <= row["methods"].keys()
    folder = tmp_path / "res" / "zip"
    assert all(
        (folder / row["artifacts"][name]).is_file() for name in ("hypotheses", "predictions", "errors")
    )
    assert isinstance(read_items(load(folder / "asr_espnet.json"), tmp_path / "res"), dict)
    again = python(*command)
    assert again.stderr.count("complete, skipped") == 3
    (tmp_path / "tiny.yaml").write_text(TINY_TRAINING + "accum_grad: 2\n")
    refused = python(*command)
    assert refused.returncode == 2
    assert "another content of config" in refused.stderr

    # the wrapper, where the hook is off, decodes the same words
    words = ["-m", "sslbench", "espnet", "asr_inference", "--ngpu", "0", "--output_dir", "second"]
    words += ["--config", str(HERE / "decode_ctc.yaml")]
    words += ["--data_path_and_name_and_type", "exp/data/test/wav.scp,speech,sound"]
    words += ["--key_file", "exp/data/test/wav.scp", "--asr_train_config", "exp/model/config.yaml"]
    words += ["--asr_model_file", "exp/model/valid.loss.best.pth"]
    done: subprocess.CompletedProcess[str] = python(*words, SSLBENCH_NO_HOOK="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert table(tmp_path / "second/1best_recog/text") == table(exp / "decode/1best_recog/text")
