"""Units: MFCC frames, streaming k-means, labels on cuts, quality figures."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem

from sslbench.cli import main
from sslbench.data.manifests import open_manifest, write_corpus
from sslbench.data.units import (
    FitSettings,
    UnitModel,
    fit_units,
    label_manifest,
    measure,
    open_features,
    quality,
)
from sslbench.data.units.features import num_frames
from sslbench.errors import CorruptFileError, SslbenchError

PHONES = {"AA": 300.0, "IY": 900.0, "SH": 2500.0}


def _clip(path: Path, index: int, broken: bool = False) -> MonoCut:
    """Half a second of noisy tones, one tone per phone, in an order that depends on the index."""
    rng = np.random.default_rng(index)
    order = rng.permutation(list(PHONES))
    times = np.arange(2560) / 16_000  # 160 ms per phone
    wave = np.concatenate([np.sin(2 * np.pi * PHONES[p] * times) for p in order]) * 0.3
    wave += rng.normal(0, 0.01, len(wave))
    soundfile.write(path, wave, 16_000, subtype="PCM_16")
    items = [AlignmentItem(f"{p}1", i * 0.16, 0.16) for i, p in enumerate(order)]
    recording = Recording.from_file(path, recording_id=path.stem)
    if broken:
        path.write_bytes(b"not audio")
    segment = SupervisionSegment(
        path.stem, path.stem, 0, recording.duration, text="A", speaker=f"s{index % 3}"
    )
    segment.alignment = {"phone": items}
    return MonoCut(path.stem, 0, recording.duration, 0, recording=recording, supervisions=[segment])


def _corpus(root: Path, clips: int, broken: int = 0) -> Path:
    cuts = [_clip(root / f"c{i:03d}.wav", i, broken=i < broken) for i in range(clips)]
    write_corpus(root / "m", "tones", {"train": cuts}, synthetic=True)
    return root / "m" / "train.jsonl.gz"


@pytest.mark.parametrize("samples", [1, 39, 80, 319, 320, 321, 400, 960, 961, 1039, 16_000, 16_001])
def test_mfcc_has_one_frame_per_started_20_ms(samples: int) -> None:
    (frames,) = open_features("mfcc").frames([torch.randn(samples)])
    assert frames.shape == (-(-samples // 320), 39)
    assert torch.isfinite(frames).all()


def test_mfcc_is_kaldis_at_a_20_ms_hop() -> None:
    from torchaudio.compliance.kaldi import mfcc

    wav = torch.randn(3200)
    (frames,) = open_features("mfcc").frames([wav])
    expected = mfcc(wav[None], frame_shift=20.0, snip_edges=False, use_energy=False)
    torch.testing.assert_close(frames[:, :13], expected)
    assert not torch.allclose(frames[1:, :13], expected[:-1])  # control: one frame off is seen


@pytest.mark.parametrize("pool_frames", [400_000, 300])
def test_tones_become_units_that_know_their_phone(tmp_path: Path, pool_frames: int) -> None:
    manifest = _corpus(tmp_path, 24)
    settings = FitSettings(clusters=6, pool_frames=pool_frames, batch_frames=100, normalize="global")
    fit_units(manifest, open_features("mfcc"), tmp_path / "units", settings)
    out = tmp_path / "labelled.jsonl.gz"
    counts = label_manifest(tmp_path / "units", manifest, out)
    assert counts == {"cuts": 24, "skipped": 0, "frames": 24 * 24}
    cuts = list(open_manifest(out))
    figures = measure(cuts, clusters=6)
    assert figures["label_rate_hz"] == pytest.approx(50)
    assert figures["phones"]["phones"] == 3
    assert figures["phones"]["pnmi"] > 0.6
    assert figures["phones"]["phone_purity"] > 0.8
    # positive control: the same labels on other cuts say next to nothing
    words = [cut.custom["kmeans"] for cut in cuts]
    for cut, other in zip(cuts, words[1:] + words[:1], strict=True):
        cut.custom["kmeans"] = other
    assert measure(cuts, clusters=6)["phones"]["pnmi"] < figures["phones"]["pnmi"] / 2


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    manifest = _corpus(tmp_path, 12)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit_units(
            manifest,
            open_features("mfcc"),
            tmp_path / name,
            FitSettings(clusters=8, seed=seed, pool_frames=100),
        )
        label_manifest(tmp_path / name, manifest, tmp_path / f"{name}.jsonl.gz")
    labels = {name: (tmp_path / f"{name}.jsonl.gz").read_bytes() for name in "abc"}
    assert labels["a"] == labels["b"]
    assert labels["a"] != labels["c"]


def test_a_finished_fit_is_kept_and_another_request_is_refused(tmp_path: Path) -> None:
    manifest = _corpus(tmp_path, 6)
    fit_units(manifest, open_features("mfcc"), tmp_path / "u", FitSettings(clusters=4))
    before = (tmp_path / "u" / "units.safetensors").stat().st_mtime_ns
    fit_units(manifest, open_features("mfcc"), tmp_path / "u", FitSettings(clusters=4))
    assert (tmp_path / "u" / "units.safetensors").stat().st_mtime_ns == before
    with pytest.raises(SslbenchError, match="another request"):
        fit_units(manifest, open_features("mfcc"), tmp_path / "u", FitSettings(clusters=5))


def test_limit_hours_stops_early_and_is_recorded(tmp_path: Path) -> None:
    manifest = _corpus(tmp_path, 20)
    settings = FitSettings(clusters=4, limit_hours=3 / 3600)
    facts = fit_units(manifest, open_features("mfcc"), tmp_path / "u", settings).facts
    assert 3 / 3600 <= facts["hours"] < 3.5 / 3600
    assert facts["cuts"] == 7
    with pytest.raises(SslbenchError, match="cannot make 500 clusters"):
        fit_units(manifest, open_features("mfcc"), tmp_path / "v", FitSettings(clusters=500))


def test_bad_audio_is_skipped_and_named_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = _corpus(tmp_path, 120, broken=1)
    fit_units(manifest, open_features("mfcc"), tmp_path / "u", FitSettings(clusters=4))
    counts = label_manifest(tmp_path / "u", manifest, tmp_path / "out.jsonl.gz")
    assert counts["cuts"] == 119
    assert counts["skipped"] == 1
    named = [json.loads(line) for line in (tmp_path / "out.skipped.jsonl").read_text().splitlines()]
    assert [row["id"] for row in named] == ["c000"]

    many = tmp_path / "many"
    many.mkdir()
    manifest = _corpus(many, 20, broken=5)
    with pytest.raises(SslbenchError, match="more than the limit"):
        label_manifest(tmp_path / "u", manifest, many / "out.jsonl.gz")
    assert not (many / "out.jsonl.gz").exists()


def test_a_complete_output_is_not_made_again_but_a_damaged_one_is(tmp_path: Path) -> None:
    manifest = _corpus(tmp_path, 6)
    fit_units(manifest, open_features("mfcc"), tmp_path / "u", FitSettings(clusters=4))
    out = tmp_path / "out.jsonl.gz"
    first = label_manifest(tmp_path / "u", manifest, out)
    stamp = out.stat().st_mtime_ns
    assert label_manifest(tmp_path / "u", manifest, out) == first
    assert out.stat().st_mtime_ns == stamp
    whole = out.read_bytes()
    out.write_bytes(whole[:100])
    assert label_manifest(tmp_path / "u", manifest, out) == first
    assert out.read_bytes() == whole


def test_wrong_label_rate_and_missing_labels_are_errors(tmp_path: Path) -> None:
    cut = _clip(tmp_path / "c.wav", 0)
    with pytest.raises(SslbenchError, match="has no units"):
        measure([cut])
    cut.custom = {"kmeans": "1 2 3"}
    with pytest.raises(SslbenchError, match="3 units for 7680 samples, 24 expected"):
        measure([cut])


def test_damaged_units_are_refused(tmp_path: Path) -> None:
    manifest = _corpus(tmp_path, 6)
    fit_units(manifest, open_features("mfcc"), tmp_path / "u", FitSettings(clusters=4))
    path = tmp_path / "u" / "units.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptFileError, match="sha256"):
        UnitModel.load(tmp_path / "u")


class _Coarse(torch.nn.Module):
    """An upstream with three layers, `stride` samples per frame, and (like many) one frame too few."""

    weights, weights_sha256 = "none", None

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def get_downsample_rates(self, key: str) -> int:
        return self.stride

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        frames = max(1, max(map(len, wavs)) // self.stride - 1)
        base = torch.arange(frames, dtype=torch.float32).repeat(len(wavs), 1)[..., None]
        return {"hidden_states": [base, base + 100, base + 200]}


@pytest.mark.parametrize(
    ("stride", "expected"), [(320, [0, 1, 2, 3, 3]), (160, [0, 2, 4, 6, 8]), (640, [0, 0, 0, 0, 0])]
)
def test_layers_of_any_fitting_stride_become_50_hz(
    stride: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sslbench.upstreams.load_upstream", lambda name, **_: _Coarse(stride))
    features = open_features("coarse:middle")
    assert features.name == "coarse:1"
    (frames,) = features.frames([torch.zeros(1600)])
    assert (frames[:, 0] - 100).tolist() == expected
    with pytest.raises(SslbenchError, match="no layer 3"):
        open_features("coarse:3")
    monkeypatch.setattr("sslbench.upstreams.load_upstream", lambda name, **_: _Coarse(400))
    with pytest.raises(SslbenchError, match="400 samples does not fit"):
        open_features("coarse:0")


def test_quality_of_an_example_worked_by_hand() -> None:
    # phones a, b; units 0, 1, 2: a falls 3 times on 0 and once on 1, b twice on 1 and twice on 2
    joint = np.array([[3, 1, 0], [0, 2, 2]])
    figures = quality(joint)
    assert figures["phone_purity"] == pytest.approx((3 + 2 + 2) / 8)
    assert figures["cluster_purity"] == pytest.approx((3 + 2) / 8)
    # H(phone) = ln 2; H(unit) of (3, 3, 2)/8; H(joint) of (3, 1, 2, 2)/8
    h_unit = -(6 / 8 * np.log(3 / 8) + 2 / 8 * np.log(2 / 8))
    h_joint = -(3 / 8 * np.log(3 / 8) + 1 / 8 * np.log(1 / 8) + 4 / 8 * np.log(2 / 8))
    assert figures["pnmi"] == pytest.approx((np.log(2) + h_unit - h_joint) / np.log(2))


def test_mutual_information_equals_scikit_learns() -> None:
    from sklearn.metrics import mutual_info_score

    rng = np.random.default_rng(0)
    phones, units = rng.integers(0, 7, 500), rng.integers(0, 11, 500)
    joint = np.zeros((7, 11))
    np.add.at(joint, (phones, units), 1)
    assert quality(joint)["mutual_information_nats"] == pytest.approx(mutual_info_score(phones, units))
    assert quality(np.eye(5))["pnmi"] == pytest.approx(1)
    assert quality(np.ones((5, 5)))["pnmi"] == pytest.approx(0, abs=1e-12)


def test_phone_of_a_frame_is_the_one_at_its_centre(tmp_path: Path) -> None:
    from sslbench.data.units.quality import phone_frames

    cut = _clip(tmp_path / "c.wav", 0)
    items = [
        AlignmentItem("AA1", 0.0, 0.025),
        AlignmentItem("B", 0.025, 0.035),
        AlignmentItem("CH", 0.08, 0.02),
    ]
    cut.supervisions[0].alignment = {"phone": items}
    assert phone_frames(cut, 6) == ["AA", "B", "B", None, "CH", None]


def test_report_counts_what_never_occurs(tmp_path: Path) -> None:
    cut = _clip(tmp_path / "c.wav", 0)
    cut.custom = {"kmeans": " ".join(["0"] * 18 + ["2"] * 6)}
    cut.supervisions[0].alignment = None
    figures = measure([cut], clusters=5)
    assert figures["empty_clusters"] == 3
    assert figures["majority_share"] == 0.75
    assert figures["mean_run_frames"] == 12
    assert figures["histogram"] == [18, 0, 6, 0, 0]
    assert figures["phones"] is None
    with pytest.raises(SslbenchError, match="beyond the 2 clusters"):
        measure([cut], clusters=2)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = str(_corpus(tmp_path, 6))
    units, out = str(tmp_path / "u"), str(tmp_path / "o" / "train.jsonl.gz")
    fit = ["units", "fit", "--manifest", manifest, "--feature", "mfcc", "--clusters", "4", "--out", units]
    assert main(fit) == 0
    assert main(["units", "apply", "--units", units, "--manifest", manifest, "--out", out]) == 0
    report = tmp_path / "report.json"
    assert main(["units", "report", "--manifest", out, "--units", units, "--out", str(report)]) == 0
    assert json.loads(report.read_text())["frames"] == 6 * num_frames(7680)
    assert "pnmi" in capsys.readouterr().out
    with gzip.open(out, "rt") as stream:
        assert json.loads(stream.readline())["custom"]["corpus"] == "tones"
    assert main(["units", "fit", *fit[2:4], "--feature", "mfc", "--clusters", "4", "--out", units]) == 2
