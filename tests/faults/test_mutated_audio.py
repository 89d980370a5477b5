"""1,000 damaged audio files: nothing crashes, every unusable one is named with its reason.

Three readers meet every file: the loader (files damaged after their manifest was made), `data prepare`
(manifests made of damaged files) and `data audit`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, Recording

from sslbench.corpora._checked import check_audio
from sslbench.data.audit import audit
from sslbench.data.loading import BatchLoader, SkipLog
from sslbench.data.manifests import open_manifest, write_manifest
from sslbench.errors import SslbenchError

FILES = 1_000
SAMPLES = 4_800  # 0.3 s


def truncate(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(1, len(data))])


def flip(path: Path, rng: random.Random, first: int, last: int) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(first, min(last, len(data)))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def rewrite(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str | None = None) -> None:  # type: ignore[type-arg]
    kind = {".wav": "WAV", ".flac": "FLAC"}[path.suffix]
    soundfile.write(path, samples, rate, format="WAV" if subtype == "FLOAT" else kind, subtype=subtype)


def noise(samples: int = SAMPLES, channels: int = 1) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(0).standard_normal((samples, channels)).astype(np.float32) * 0.1


def not_finite(path: Path, rng: random.Random) -> None:
    wav = noise()
    wav[rng.randrange(SAMPLES)] = rng.choice([np.nan, np.inf, -np.inf])
    rewrite(path, wav, subtype="FLOAT")


Mutation = Callable[[Path, random.Random], object]
# name -> (how, whether the loader must refuse the file; None: depends on which bits were hit)
MUTATIONS: dict[str, tuple[Mutation, bool | None]] = {
    "truncated": (truncate, None),
    "header bits": (lambda path, rng: flip(path, rng, 0, 44), None),
    "body bits": (lambda path, rng: flip(path, rng, 44, 1 << 30), None),
    "empty": (lambda path, _: path.write_bytes(b""), True),
    "missing": (lambda path, _: path.unlink(), True),
    "text": (lambda path, _: path.write_text("this is no audio\n" * 50), True),
    "random bytes": (lambda path, rng: path.write_bytes(rng.randbytes(3000)), True),
    "zeros": (lambda path, _: path.write_bytes(bytes(3000)), True),
    "folder": (lambda path, _: (path.unlink(), path.mkdir()), True),
    "no samples": (lambda path, _: rewrite(path, noise(0)), True),
    "wrong extension": (lambda path, _: soundfile.write(path, noise(), 16_000, format="OGG"), False),
    "not finite": (not_finite, True),
    "wrong rate": (lambda path, rng: rewrite(path, noise(), rng.choice([8_000, 22_050, 48_000])), True),
    "stereo": (lambda path, _: rewrite(path, noise(channels=2)), False),
    "shorter": (lambda path, rng: rewrite(path, noise(rng.randrange(1, SAMPLES - 200))), True),
    "longer": (lambda path, _: rewrite(path, noise(2 * SAMPLES)), False),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], int]:
    """A manifest of 1,000 damaged files among 200 sound ones, and what was done to each cut."""
    folder = tmp_path_factory.mktemp("damaged")
    rng, names = random.Random(0), list(MUTATIONS)
    cuts, done, sound = [], {}, {}
    for suffix in ("wav", "flac"):
        soundfile.write(folder / f"sound.{suffix}", noise()[:, 0], 16_000)
        sound[suffix] = (folder / f"sound.{suffix}").read_bytes()
        (folder / f"sound.{suffix}").unlink()
    for number in range(FILES + 200):
        suffix = "wav" if number % 2 else "flac"
        path = folder / f"u{number:04d}.{suffix}"
        path.write_bytes(sound[suffix])
        source = AudioSource("file", [0], str(path))
        recording = Recording(path.stem, [source], 16_000, SAMPLES, SAMPLES / 16_000)
        cuts.append(recording.to_cut().with_id(path.stem))
        if number < FILES:
            # pairs: every damage meets wav and flac
            done[path.stem] = names[number // 2 % len(names)]
            MUTATIONS[done[path.stem]][0](path, rng)
    write_manifest(cuts, folder / "train.jsonl.gz")
    return folder, done, len(cuts)


def test_the_loader_skips_and_names_what_it_cannot_use(damaged: tuple[Path, dict[str, str], int]) -> None:
    folder, done, total = damaged
    log = SkipLog(folder / "skipped.jsonl", limit_share=1.0)
    loader = BatchLoader(open_manifest(folder / "train.jsonl.gz"), 30.0, skip_log=log, num_workers=1)
    good = [cut.id for batch in loader.epoch(0) for cut in batch.cuts]
    assert len(good) + log.count == total
    assert not set(good) & log.reasons.keys()
    assert {f"u{number:04d}" for number in range(FILES, total)} <= set(good)
    for name, how in done.items():
        must = MUTATIONS[how][1]
        if must is not None:
            assert (name in log.reasons) == must, (name, how, log.reasons.get(name))
    assert all(reason.startswith(f"{name}: ") and len(reason) > 20 for name, reason in log.reasons.items())
    lost = Counter(done[name] for name in log.reasons)
    assert lost["truncated"] > 55  # of 64: only those that lose nothing but padding survive
    assert lost["header bits"] > 10


def test_too_many_end_the_run_and_name_the_first(damaged: tuple[Path, dict[str, str], int]) -> None:
    folder, _, _ = damaged
    with pytest.raises(SslbenchError, match=r"cuts could not be used, more than the limit of 1\.0%, first u"):
        list(BatchLoader(open_manifest(folder / "train.jsonl.gz"), 30.0).epoch(0))


def test_preparation_gives_a_reason_for_each(
    damaged: tuple[Path, dict[str, str], int], tmp_path: Path
) -> None:
    folder, done, _ = damaged
    for path in sorted(folder.glob("u*")):
        checked = check_audio(path, tmp_path / "copy.flac")
        assert bool(checked.reason) != bool(checked.audio), path
        if MUTATIONS[done.get(path.stem, "stereo")][1] is True and done[path.stem] not in (
            "shorter",
            "wrong rate",
        ):
            assert checked.reason, (path, done[path.stem])  # those two are sound files in themselves


def test_the_audit_names_each(damaged: tuple[Path, dict[str, str], int]) -> None:
    folder, done, total = damaged
    report = audit([folder / "train.jsonl.gz"], jobs=1)
    assert report["splits"][0]["cuts"] == total
    named = {row["kind"]: {cut["id"] for cut in row["cuts"]} for row in report["findings"]}
    fatal = set().union(
        *(ids for kind, ids in named.items() if kind not in ("duplicate_audio", "clipped", "dc_offset"))
    )
    for name, how in done.items():
        if MUTATIONS[how][1] or how in ("longer", "stereo"):
            assert name in fatal, (name, how)
    expected = {
        "missing": "missing", "empty": "unreadable", "text": "unreadable", "wrong rate": "wrong_rate",
        "not finite": "not_finite", "longer": "duration_mismatch", "stereo": "channels",
        "shorter": "truncated",
    }  # fmt: skip
    for how, kind in expected.items():
        assert {name for name, was in done.items() if was == how} <= named[kind], how
