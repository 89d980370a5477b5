"""sslbench superb: rows and prediction files from the command line, errors in one line."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from probe_fakes import Spectral, make_corpus

from sslbench.cli import main, superb
from sslbench.errors import SslbenchError
from sslbench.probe.task import load_task
from sslbench.report import store


def test_run_and_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sslbench.upstreams.load_upstream", lambda name, **_: Spectral())
    corpus = make_corpus(tmp_path / "corpus", speakers=2, per_session=3)
    words = ["superb", "run", "--upstream", "spectral", "--system", "spectral-a", "--tasks", "sid"]
    words += ["--data", str(corpus), "--out", str(tmp_path / "exp"), "--results", str(tmp_path / "results")]
    assert main([*words, "--lrs", "1e-2"]) == 0
    row = store.load(store.row_path(tmp_path / "results", "spectral-a", "sid"))
    assert (row.upstream, row.tier, row.weights, row.data.corpus) == ("spectral", "smoke", "none", "tones")
    assert row.data.synthetic
    printed = capsys.readouterr().out
    assert main(["superb", "score", str(tmp_path / "exp")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == printed.splitlines()[0]

    for changed, complaint in (
        (["--lrs", "fast"], "expected positive numbers"),
        (["--tasks", "sdi"], "did you mean sd or sid"),
        (["--ckpt", str(tmp_path / "none")], "no such checkpoint"),
        (["--data", str(tmp_path)], "sid: VoxCeleb1 under"),
        (
            ["--tasks", "sid,ks,er", "--roots", "ks=/no/ks,er=/no/er"],
            "ks: no such data folder: /no/ks; er: no",
        ),
        (["--roots", "sdi=/tmp"], "no probe task 'sdi'; did you mean sd or sid"),
    ):
        assert main([*words, *changed]) == 2
        assert complaint in capsys.readouterr().err
    assert main(["superb", "score", str(tmp_path / "nothing")]) == 2


def test_asr_is_the_probe_task_of_that_name() -> None:
    assert superb._tasks("sid, asr,superb_asr", "smoke") == ["sid", "superb_asr"]
    assert superb._roots(Namespace(roots="asr=/a,ks=/b")) == {"superb_asr": Path("/a"), "ks": Path("/b")}
    with pytest.raises(SslbenchError, match=r"asr: is no probe task .*; did you mean superb_asr\?"):
        load_task("asr", "smoke")
