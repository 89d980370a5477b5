"""A k2 that does not fit counts as absent, and says why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslbench.cli import doctor
from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig, resolve
from sslbench.finetune.decoders.choose import DecodeSettings, lm_search
from sslbench.integrations import k2


@pytest.fixture
def unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that is found, but whose library was built for another torch."""
    (tmp_path / "k2").mkdir()
    (tmp_path / "k2" / "__init__.py").write_text("raise OSError('libk2.so: undefined symbol: torch')\n")
    (tmp_path / "k2-1.24.4.dist-info").mkdir()
    (tmp_path / "k2-1.24.4.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: k2\nVersion: 1.24.4\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "k2", raising=False)
    k2.why_not.cache_clear()
    yield
    k2.why_not.cache_clear()


@pytest.mark.usefixtures("unfit")
def test_an_unfit_k2_is_left_alone_and_the_doctor_says_why() -> None:
    assert not k2.available()
    assert resolve(FinetuneConfig(objective="transducer")).transducer_loss == "full"
    with pytest.raises(SslbenchError, match="undefined symbol"):
        resolve(FinetuneConfig(objective="transducer", transducer_loss="pruned"))
    with pytest.raises(SslbenchError, match="needs k2"):
        lm_search(DecodeSettings(lm="x.arpa", lm_search="k2"))
    found = doctor._k2()
    assert (found.state, found.found) == ("differs", "1.24.4")
    assert "undefined symbol" in found.advice
