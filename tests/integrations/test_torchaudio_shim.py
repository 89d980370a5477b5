"""The torchaudio stand-ins against soundfile and, where sox is installed, against torchaudio itself."""

from __future__ import annotations

import shutil
from types import ModuleType

import pytest
import torch

from sslbench.integrations.s3prl import torchaudio_shim as shim


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "two.wav"
    samples = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)) * 0.1
    shim.save(path, samples, 16_000)
    return path, samples


def test_load_gives_what_was_saved(wav) -> None:
    path, samples = wav
    loaded, rate = shim.load(path)
    assert rate == 16_000
    assert torch.allclose(loaded, samples, atol=2**-15)
    part, _ = shim.load(str(path), frame_offset=100, num_frames=50, channels_first=False)
    assert part.shape == (50, 2)
    assert torch.equal(part.t(), loaded[:, 100:150])


def test_info_reads_the_header(wav) -> None:
    found = shim.info(wav[0])
    assert (found.sample_rate, found.num_frames, found.num_channels, found.bits_per_sample) == (
        16_000,
        4000,
        2,
        16,
    )


def test_install_fills_a_bare_module(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchaudio.sox_effects", None)
    module = ModuleType("torchaudio")
    shim.install(module)
    module.set_audio_backend("sox_io")
    from torchaudio.sox_effects import apply_effects_file

    assert apply_effects_file is shim.apply_effects_file


def test_a_missing_sox_says_how_to_get_it(wav, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match="sox"):
        shim.apply_effects_file(wav[0], [["channels", "1"]])


@pytest.mark.skipif(shutil.which("sox") is None, reason="the sox program is not installed")
def test_effects_run_through_sox(wav) -> None:
    halved, rate = shim.apply_effects_tensor(wav[1], 16_000, [["vol", "0.5"], ["trim", "0", "1000s"]])
    assert rate == 16_000
    assert torch.allclose(halved, wav[1][:, :1000] * 0.5, atol=1e-6)


@pytest.mark.usefixtures("hook_works")
def test_s3prl_imports_where_torchaudio_lost_its_calls(python) -> None:
    """torchaudio 2.9 as s3prl's byol_s meets it, which is what stops `import s3prl.hub` there."""
    pytest.importorskip("s3prl")
    code = (
        "import torchaudio\n"
        "for name in ('set_audio_backend', 'info', 'list_audio_backends', 'sox_effects'):\n"
        "    vars(torchaudio).pop(name, None)\n"
        "import s3prl.upstream.byol_s.byol_a.common\n"
        "from torchaudio.sox_effects import apply_effects_file\n"
        "print(torchaudio.info.__module__, apply_effects_file.__module__)"
    )
    done = python(code=code)
    assert done.stdout.split() == ["sslbench.integrations.s3prl.torchaudio_shim"] * 2, done.stderr[-2000:]
    without = python(code=code, SSLBENCH_NO_HOOK="1")
    assert "set_audio_backend" in without.stderr
