"""s3prl's upstreams behind our contract: frozen, with fitting frames, and honest about their weights."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

from sslbench.data.units import open_features
from sslbench.errors import SslbenchError
from sslbench.integrations.s3prl import load, names, stand_in
from sslbench.upstreams import load_upstream

pytest.importorskip("s3prl")


def wav(samples: int) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1


@pytest.fixture(scope="module")
def fbank() -> nn.Module:
    return load_upstream("fbank")


def test_fbank_is_the_baseline_without_weights(fbank) -> None:
    assert (fbank.weights, fbank.weights_sha256) == ("none", None)
    assert fbank.get_downsample_rates("hidden_states") == 160
    states = fbank([wav(16_000)])["hidden_states"]
    assert [tuple(state.shape) for state in states] == [(1, 100, 240)]


def test_frames_fit_for_every_awkward_length(fbank) -> None:
    """Raw, s3prl's fbank raises below 400 samples and gives NaN for one frame (std of one value)."""
    for samples in (1, 160, 161, 399, 400, 401, 559, 561, 799, 801, 1039, 16_001):
        (states,) = fbank([wav(samples)])["hidden_states"]
        assert states.shape[1] == -(-samples // 160)
        assert states.isfinite().all(), samples


def test_padding_changes_nothing_and_ends_are_zero(fbank) -> None:
    clips = [wav(9000), wav(3001), wav(50)]
    (together,) = fbank(clips)["hidden_states"]
    for row, clip in enumerate(clips):
        (alone,) = fbank([clip])["hidden_states"]
        assert torch.allclose(together[row, : alone.shape[1]], alone[0], atol=1e-5)
        assert not together[row, alone.shape[1] :].any()


def test_values_are_s3prls_own(fbank) -> None:
    from s3prl.upstream.baseline.hubconf import fbank as theirs

    (expected,) = theirs()([wav(8000)])["hidden_states"]
    (states,) = fbank([wav(8000)])["hidden_states"]
    assert torch.equal(states[:, : expected.shape[1]], expected)
    assert torch.equal(states[:, -1], expected[:, -1])


def test_unknown_names_suggest_ours_and_theirs() -> None:
    with pytest.raises(SslbenchError, match="hubert_base"):
        load.load_s3prl_upstream("huber_base")
    with pytest.raises(SslbenchError, match="zipformer"):
        load.load_s3prl_upstream("zipformr_tiny")


def test_a_missing_checkpoint_is_an_error_not_random_weights() -> None:
    with pytest.raises(SslbenchError, match=r"wavlm_local: .*; see whether /no/such/file.pt is of"):
        load.load_s3prl_upstream("wavlm_local", ckpt="/no/such/file.pt")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("hubert_base", "hubert_local --ckpt FILE"),
        ("mos_tera", "mos_tera_local --ckpt FILE"),
        ("fbank", "it has no name that loads a file"),
    ],
)
def test_a_checkpoint_that_s3prl_would_ignore_is_refused(name: str, advice: str) -> None:
    """s3prl's entries write their own address over `ckpt`, so the public weights would be scored."""
    with pytest.raises(SslbenchError, match=f"{name}: takes no --ckpt, which s3prl would ignore; .*{advice}"):
        load.load_s3prl_upstream(name, ckpt="mine.pt")


def test_every_entry_that_names_ckpt_among_its_arguments_takes_it() -> None:
    import s3prl

    named = {
        node.name
        for path in (Path(s3prl.__file__).parent / "upstream").glob("*/hubconf.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and "ckpt" in [argument.arg for argument in node.args.args]
    }
    assert {"wavlm_local", "apc_url", "hubert_custom"} <= named
    assert not [name for name in named if not names.takes_ckpt(name)]


class Expert(nn.Module):
    """25 ms windows every 20 ms, as HuBERT: fewer frames than the contract wants."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 400, 320)
        self.dropout = nn.Dropout(0.5)

    def get_downsample_rates(self, key: str) -> list[int]:
        return [320, 320]

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        audio = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        frames = self.dropout(self.conv(audio[:, None]).transpose(1, 2))
        return {"hidden_states": [frames, frames * 2]}


def test_frozen_stays_frozen_and_trainable_learns() -> None:
    frozen = load.ForeignUpstream(Expert(), "imported")
    nn.Sequential(frozen).train()
    first, second = (frozen([wav(4000)])["hidden_states"][0] for _ in range(2))
    assert torch.equal(first, second)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    free = load.ForeignUpstream(Expert(), "imported", frozen=False)
    free.train()
    assert not torch.equal(*(free([wav(4000)])["hidden_states"][0] for _ in range(2)))
    assert frozen([wav(961)])["hidden_states"][1].shape == (1, 4, 4)


def test_the_hash_names_the_weights() -> None:
    torch.manual_seed(0)
    one, other = Expert(), Expert()
    first = load.ForeignUpstream(one, "imported").weights_sha256
    assert first != load.ForeignUpstream(other, "imported").weights_sha256
    other.load_state_dict(one.state_dict())
    assert first == load.ForeignUpstream(other, "imported").weights_sha256


def test_what_cannot_be_fetched_is_random_and_says_so(monkeypatch) -> None:
    """Offline, a known architecture stands in where that is asked for; anything else is an error."""

    def offline(**_options):
        raise OSError("no route to host")

    monkeypatch.setattr(load, "_find", lambda name: offline)
    monkeypatch.setattr(stand_in, "stand_in", lambda name, seed: Expert() if name == "hubert_base" else None)
    with pytest.warns(UserWarning, match="RANDOM"):
        upstream = load.load_s3prl_upstream("hubert_base", stand_in=True)
    assert (upstream.weights, upstream.weights_sha256) == ("random", None)
    for name, asked in (("apc", True), ("hubert_base", False)):
        with pytest.raises(SslbenchError, match=r"no route to host\); weights in a file are named by"):
            load.load_s3prl_upstream(name, stand_in=asked)
    with pytest.raises(SslbenchError, match="no route to host"):
        open_features("hubert_base:1")  # no units of weights that nobody asked for


def test_stand_ins_have_the_published_size() -> None:
    """94.7 M parameters are published for HuBERT Base with its pretraining head; the encoder has 94.37 M."""
    pytest.importorskip("transformers")
    model = stand_in.stand_in("hubert_base")
    assert sum(parameter.numel() for parameter in model.parameters()) == 94_371_712
    states = model([wav(1600), wav(800)])["hidden_states"]
    assert len(states) == 13
    assert states[0].shape == (2, 4, 768)
    assert stand_in.stand_in("hubert_local") is None
