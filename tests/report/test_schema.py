"""Rows: what is refused, what still loads, and what survives two writers."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fake_benchmark as fake
import pytest

from sslbench.errors import CorruptFileError, SslbenchError
from sslbench.report import schema, store

ROWS = Path(__file__).parent / "rows"


@pytest.mark.parametrize("name", sorted(fake.stamp()))
def test_a_missing_provenance_field_is_refused_by_name(name: str) -> None:
    stamp = fake.stamp()
    del stamp[name]
    with pytest.raises(SslbenchError, match=rf"refused result row: provenance\.{name}: Field required"):
        store.make_row(**fake.fields(provenance=stamp))


def test_unknown_keys_are_refused_at_every_depth() -> None:
    with pytest.raises(SslbenchError, match="speed: Extra inputs are not permitted"):
        store.make_row(**fake.fields(speed=3))
    with pytest.raises(SslbenchError, match=r"provenance\.mood: Extra inputs"):
        store.make_row(**fake.fields(provenance=fake.stamp(mood="good")))
    metric = {"value": 1.0, "unit": "%", "higher_is_better": False, "colour": "red"}
    with pytest.raises(SslbenchError, match=r"metrics\.wer\.colour: Extra inputs"):
        store.make_row(**fake.fields(metrics={"wer": metric}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    metric = {"value": value, "unit": "%", "higher_is_better": False}
    with pytest.raises(SslbenchError, match=r"metrics\.wer\.value: Input should be a finite number"):
        store.make_row(**fake.fields(metrics={"wer": metric}))


def test_trained_weights_need_a_checksum_and_a_row_needs_a_metric() -> None:
    with pytest.raises(SslbenchError, match="trained weights need their sha256"):
        store.make_row(**fake.fields(weights_sha256=None))
    with pytest.raises(SslbenchError, match="metrics: "):
        store.make_row(**fake.fields(metrics={}))


@pytest.mark.parametrize("system", ["../elsewhere", "a/b", "", ".hidden", "a b"])
def test_systems_cannot_leave_the_results_folder(system: str) -> None:
    with pytest.raises(SslbenchError, match="system: "):
        store.make_row(**fake.fields(system))


def test_a_trial_does_not_replace_a_row_that_counts(tmp_path: Path) -> None:
    path = store.save(store.make_row(**fake.fields(tier="full")), tmp_path)
    written = path.read_bytes()
    with pytest.raises(SslbenchError, match="is a row of tier full, which one of tier short"):
        store.save(store.make_row(**fake.fields(tier="short")), tmp_path)
    assert path.read_bytes() == written
    path.write_text("{torn")
    store.save(store.make_row(**fake.fields(tier="smoke")), tmp_path)
    store.save(store.make_row(**fake.fields(tier="full")), tmp_path)
    assert store.load(path).tier == "full"


def test_every_past_schema_version_loads() -> None:
    files = sorted(ROWS.glob("v*.json"))
    assert [path.stem for path in files] == [f"v{n}" for n in range(1, schema.SCHEMA_VERSION + 1)]
    row = store.load(ROWS / "v1.json")
    assert row.metrics["wer"].value == 12.345
    assert row.search is not None
    assert row.search.scores == {"0.001": 12.0, "0.0001": 15.5}
    added = {"methods": {}, "flags": []}
    assert row.model_dump(mode="json") == json.loads((ROWS / "v1.json").read_text()) | added
    row = store.load(ROWS / "v2.json")
    assert row.methods == {"text_normaliser": "upper case, no punctuation"}
    assert row.model_dump(mode="json") == json.loads((ROWS / "v2.json").read_text())


def test_a_row_from_the_future_or_a_damaged_one_is_named(tmp_path: Path) -> None:
    newer = json.loads((ROWS / "v1.json").read_text()) | {"schema_version": 999}
    path = tmp_path / "asr.json"
    path.write_text(json.dumps(newer))
    with pytest.raises(CorruptFileError, match=r"asr\.json: refused result row: schema_version"):
        store.load(path)
    path.write_text((ROWS / "v1.json").read_text()[:-40])
    with pytest.raises(CorruptFileError, match=r"asr\.json: not valid JSON"):
        store.load(path)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
import fake_benchmark as fake
from sslbench.report import store
for number in range(40):
    own = fake.fields(f"system-{{number % 10}}", sys.argv[1] + str(number // 10))
    store.save(store.make_row(**own), {out!r})
    shared = fake.fields("shared", "asr", cost={{"wall_s": float(number)}})
    store.save(store.make_row(**shared), {out!r})
"""


def test_two_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    code = WRITER.format(tests=str(Path(__file__).parent), out=str(tmp_path))
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("asr", "sid")]
    while any(writer.poll() is None for writer in writers):
        for path in tmp_path.glob("*/*.json"):
            store.load(path)  # never half a row
    assert [writer.returncode for writer in writers] == [0, 0]
    rows = store.load_all(tmp_path)
    assert len(rows) == 2 * 40 + 1
    assert not list(tmp_path.glob("*/.tmp-*"))


def test_a_row_in_another_system_s_place_is_refused(tmp_path: Path) -> None:
    store.save(store.make_row(**fake.fields("a")), tmp_path)
    shutil.copytree(tmp_path / "a", tmp_path / "a-old")
    said = f"{tmp_path}/a-old/asr.json: holds the row of system 'a', evaluation 'asr'; move it to "
    with pytest.raises(CorruptFileError, match=re.escape(f"{said}{tmp_path}/a/asr.json")):
        store.load_all(tmp_path)
