"""The start-up hook: light, silent when it must be, loud on a collision."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from sslbench import registry
from sslbench.errors import SslbenchError
from sslbench.integrations.s3prl import _hook, compat, hub

REPO = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numpy", "yaml", "lhotse", "s3prl", "jsonargparse", "sslbench.registry")


@pytest.mark.usefixtures("hook_works")
def test_start_up_stays_light(python) -> None:
    done = python(code=f"import sys; print([m for m in {HEAVY} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.usefixtures("hook_works")
def test_the_opt_out_leaves_python_alone(python) -> None:
    code = "import sys; print(any(type(f).__name__ == 'ImportWatch' for f in sys.meta_path))"
    assert python(code=code).stdout.strip() == "True"
    assert python(code=code, SSLBENCH_NO_HOOK="1").stdout.strip() == "False"


def test_a_broken_installation_does_not_break_python(python, tmp_path) -> None:
    """The .pth line itself, run where sslbench cannot be imported."""
    line = (REPO / "sslbench_s3prl.pth").read_text()
    hide = "import sys; sys.modules['sslbench.integrations'] = None\n"
    done = python(code=hide + line + "\nprint('alive')")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "alive", "")


def test_watched_imports_act_once_and_keep_the_real_loader(tmp_path, monkeypatch) -> None:
    (tmp_path / "watched_module.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    events: list[str] = []
    _hook.before_import("watched_module", lambda: events.append("before"))
    _hook.after_import("watched_module", lambda module: events.append(f"after {module.value}"))
    import importlib

    module = importlib.import_module("watched_module")
    assert events == ["before", "after 1"]
    assert type(module.__spec__.loader).__name__ == "SourceFileLoader"
    importlib.reload(module)
    assert events == ["before", "after 1"]
    sys.modules.pop("watched_module")


def test_a_taken_name_is_an_error_that_names_both() -> None:
    module = ModuleType("s3prl.hub")
    name = next(iter(registry.upstreams())).name
    hub.register(module)
    hub.register(module)  # repeating it is fine
    assert callable(getattr(module, name))
    setattr(module, name, lambda: None)
    with pytest.raises(SslbenchError, match=name):
        hub.register(module)


def test_no_name_of_ours_means_something_else_in_s3prl() -> None:
    from sslbench.integrations.s3prl.names import s3prl_names

    known = s3prl_names()
    assert "fbank" in known, "s3prl's names were not read"
    assert not {entry.name for entry in registry.upstreams()} & set(known)


def test_huggingface_stand_ins_only_where_missing() -> None:
    module = ModuleType("huggingface_hub")
    real = type("HfFolder", (), {})
    module.HfFolder = real
    compat.mend_huggingface_hub(module)
    assert module.HfFolder is real
    with pytest.raises(RuntimeError, match="huggingface_hub"):
        module.Repository()
