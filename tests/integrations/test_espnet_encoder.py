"""Our encoders inside ESPnet's own ASR and SSL tasks; our upstreams frozen in truth behind its front end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from sslbench.data.manifests import open_manifest, write_manifest
from sslbench.data.units.apply import KEY
from sslbench.data.units.features import num_frames
from sslbench.integrations.espnet.asr import tokens
from sslbench.integrations.espnet.export import export

pytestmark = pytest.mark.slow  # importing ESPnet takes 15 s

COMMON = """
optim: adam
optim_conf: {lr: 0.002}
max_epoch: 2
batch_type: unsorted
batch_size: 4
num_att_plot: 0
num_workers: 0
use_tensorboard: false
use_matplotlib: false
best_model_criterion: [[valid, loss, min]]
keep_nbest_models: 1
"""
ASR = """
encoder: zipformer_tiny
encoder_conf: {input_layer: conv2d2, input_layer_dim: 32}
normalize: utterance_mvn
model_conf: {ctc_weight: 1.0}
"""
SSL = """
frontend: wav2vec_cnn
frontend_conf:
  norm_mode: group_norm
  conv_mode: standard
  bias: false
  shapes: [[16, 10, 5], [16, 3, 2], [16, 3, 2], [16, 3, 2], [16, 3, 2], [16, 2, 2], [16, 2, 2]]
preencoder: linear
preencoder_conf: {output_size: 128}
encoder: zipformer_tiny
normalize: null
loss: [{name: hubert, conf: {num_classes: 12, final_dim: 32}}]
util: [{name: mask, conf: {mask_prob: 0.8, mask_length: 10}}]
token_type: word
"""


def data_words(folder: Path) -> list[str]:
    """A handful of clips serves as training and validation set."""
    words = []
    for split in ("train", "valid"):
        words += [f"--{split}_data_path_and_name_and_type", f"{folder / 'wav.scp'},speech,sound"]
        words += [f"--{split}_data_path_and_name_and_type", f"{folder / 'text'},text,text"]
        words += [f"--{split}_shape_file", str(folder / "wav.scp")]
    return words


def losses(log: str) -> list[float]:
    """Training loss of every epoch."""
    return [float(x) for x in re.findall(r"epoch results: \[train\].*? loss=([\d.naif]+)", log)]


def checked(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_encoder_zipformer_learns_in_espnets_asr_task_and_decodes(
    mini_corpus: Path, tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pytest.importorskip("espnet2")
    write_manifest(islice(open_manifest(mini_corpus / "dev-clean.jsonl.gz"), 12), tmp_path / "c.jsonl.gz")
    export(tmp_path / "c.jsonl.gz", tmp_path / "data")
    (tmp_path / "tokens.txt").write_text("".join(f"{t}\n" for t in tokens(tmp_path / "data" / "text")))
    (tmp_path / "asr.yaml").write_text(COMMON + ASR)
    words = ["--config", "asr.yaml", "--token_type", "char", "--token_list", "tokens.txt", "--ngpu", "0"]
    words += [*data_words(tmp_path / "data"), "--output_dir", "exp"]
    log = checked(python("-m", "sslbench", "espnet", "asr_train", *words))
    first, second = losses(log)
    assert second < first < float("inf")
    state = torch.load(tmp_path / "exp" / "valid.loss.best.pth", weights_only=True)
    assert int(state["encoder.batches"]) in (3, 6)  # schedules follow the batches of an epoch of 12 clips

    (tmp_path / "decode.yaml").write_text("{beam_size: 1, ctc_weight: 1.0, lm_weight: 0.0}")
    scp = tmp_path / "data" / "wav.scp"
    words = ["--ngpu", "0", "--config", "decode.yaml", "--key_file", str(scp), "--output_dir", "decoded"]
    words += ["--data_path_and_name_and_type", f"{scp},speech,sound"]
    words += ["--asr_train_config", "exp/config.yaml", "--asr_model_file", "exp/valid.loss.best.pth"]
    checked(python("-m", "sslbench", "espnet", "asr_inference", *words))
    found = (tmp_path / "decoded" / "1best_recog" / "text").read_text().splitlines()
    assert [line.split()[0] for line in found] == [line.split()[0] for line in scp.read_text().splitlines()]


def test_encoder_zipformer_learns_in_espnets_ssl_task(
    mini_corpus: Path, tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pytest.importorskip("espnet2")
    cuts = list(islice(open_manifest(mini_corpus / "dev-clean.jsonl.gz"), 12))
    for cut in cuts:  # units that can be learned: they change every eighth frame
        cut.custom = {KEY: " ".join(str(i // 8 % 12) for i in range(num_frames(cut.num_samples)))}
    write_manifest(cuts, tmp_path / "c.jsonl.gz")
    export(tmp_path / "c.jsonl.gz", tmp_path / "data", labels="units")
    (tmp_path / "tokens.txt").write_text("".join(f"{t}\n" for t in [*range(12), "<unk>"]))
    (tmp_path / "ssl.yaml").write_text(COMMON.replace("0.002", "0.0005").replace("h: 2", "h: 6") + SSL)
    words = ["--config", "ssl.yaml", "--token_list", "tokens.txt", "--ngpu", "0"]
    words += [*data_words(tmp_path / "data"), "--output_dir", "exp"]
    log = checked(python("-m", "sslbench", "espnet", "ssl_train", *words))
    first, *_, last = losses(log)
    assert last < first < float("inf")


def test_padding_does_not_reach_an_encoders_valid_frames() -> None:
    pytest.importorskip("espnet2")
    from espnet2.tasks.asr import encoder_choices

    from sslbench.integrations.espnet.encoder import register

    before = dict(encoder_choices.classes)
    assert "zipformer" in register(encoder_choices)
    assert all(encoder_choices.classes[name] is made for name, made in before.items())
    torch.manual_seed(0)
    frames, lens = torch.randn(2, 120, 80), torch.tensor([120, 77])
    for name in ("zipformer_tiny", "hubert_k2ssl_tiny"):
        for layer in (None, "conv2d", "conv2d2"):
            encoder = encoder_choices.get_class(name)(input_size=80, input_layer=layer).eval()
            output, valid, _ = encoder(frames, lens)
            alone, alone_valid, _ = encoder(frames[1:, :77], lens[1:])
            assert output.shape[-1] == encoder.output_size()
            assert valid[1] == alone_valid[0] == alone.shape[1]
            assert torch.allclose(output[1, : valid[1]], alone[0], atol=1e-4), (name, layer)
        output.sum().backward()
        without = [key for key, weight in encoder.named_parameters() if weight.grad is None]
        # the original has these, unused: one scale per layer, and the output's downsampling
        unused = re.compile(r".*layers\.\d+\.bypass_scale|.*\.downsample_output\.bias")
        assert all(unused.fullmatch(key) for key in without)


@pytest.mark.usefixtures("hook_works")
def test_frozen_upstreams_stay_in_eval_mode_while_espnet_trains() -> None:
    pytest.importorskip("espnet2")
    import sslbench

    sslbench.register()
    from espnet2.asr.frontend.s3prl import S3prlFrontend

    def two_passes(**options: bool) -> tuple[torch.Tensor, torch.Tensor]:
        conf = {"upstream": "zipformer_tiny", "extra_conf": options or None}
        model = torch.nn.ModuleDict({"frontend": S3prlFrontend(frontend_conf=conf, multilayer_feature=True)})
        model.train()  # ESPnet does this to the whole model at the start of every epoch
        audio = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
        lens = torch.tensor([8000, 8000])
        torch.manual_seed(1)
        return model["frontend"](audio, lens)[0], model["frontend"](audio, lens)[0]

    first, second = two_passes()
    assert torch.equal(first, second)
    first, second = two_passes(frozen=False)  # the control: dropout and layer skips act where it learns
    assert not torch.equal(first, second)
