"""`--engine s3prl`: a task trained and decoded by s3prl's own runner, scored and stored as ours.

The runner works in a process of its own, because it replaces `builtins.isinstance`, evaluates strings, and
wants its checkout as the working folder. A task says in its `s3prl.yaml` what the runner is given. Its
answers are read from files; nothing is taken from its log. It knows no part of a corpus: where a tier reduces
the data, its row is of all of it, and says so by its hours and the hash of its data.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from sslbench import config as configs
from sslbench import provenance
from sslbench.errors import SslbenchError
from sslbench.io import read_yaml, sha256_json, write_text
from sslbench.nn.upstream import weights_of
from sslbench.probe.encoder import Encoder
from sslbench.probe.files import test_split
from sslbench.probe.plan import audio_digest, identity, make_plan
from sslbench.probe.rundir import write_predictions
from sslbench.probe.runner import Named, ProbeSettings, check_weights, upstream_loader
from sslbench.probe.score import over_folds
from sslbench.probe.submit import OwnFormat
from sslbench.probe.task import Prediction, ProbeTask
from sslbench.report.schema import Data, Metric, ResultRow, Search
from sslbench.report.store import check_replaceable, make_row, row_path

RUNNER = "sslbench.integrations.s3prl.run_downstream"
_HOLE = re.compile(r"\$\{(\w+)\}")


@dataclass
class Template:
    """A task's `s3prl.yaml`."""

    downstream: str
    """s3prl's name of the task."""
    lr: float
    """Its default learning rate."""
    checkpoint: str
    """The best one on dev; s3prl writes it on strict improvement only, else the newest is taken."""
    answers: str
    """File or folder of the answers on test, in the experiment; `${fold}` as in the configuration."""
    config: dict[str, Any]
    """The runner's configuration with `${…}` holes."""
    needs: list[str] = field(default_factory=list)
    """Files of s3prl's git checkout that its wheel lacks."""
    data_files: list[str] = field(default_factory=list)
    """What s3prl reads below the data and our own engine can do without."""
    accumulate: int = 1
    """Micro-batches per update."""
    ids: list[str] = field(default_factory=list)
    """Pattern and replacement that turn our ids into those of its answers."""


def run_task_s3prl(
    task: ProbeTask, named: Named, settings: ProbeSettings, root: Path, ckpt: Path | None = None
) -> ResultRow:
    """Train and decode one task at one learning rate with s3prl's runner.

    Args:
        task: of the wanted tier; its data must be in the official layout.
        named: for the row, whose system gets the ending `.s3prl`.
        settings: where and how; at most one learning rate.
        root: folder that holds s3prl's package `s3prl/`: a git checkout, or a site-packages folder.
        ckpt: of the upstream.

    Raises:
        SslbenchError: no template, no s3prl there, or the runner failed (with the end of its log).
    """
    system = f"{named.system}.s3prl"
    check_replaceable(settings.results, system, task.name, task.tier)
    template = load_template(task)
    check_root(root, template)
    _check_data(task, template, settings.data)
    if len(settings.lrs) > 1:
        raise SslbenchError("--engine s3prl: runs one learning rate; name it with --lrs, or leave --lrs out")
    lr = settings.lrs[0] if settings.lrs else template.lr
    task.protocol = replace(task.protocol, lr_grid=[lr], train_hours=None, dev_hours=None, test_hours=None)
    plan = make_plan(task, settings.data, settings.seed)
    upstream = upstream_loader(named.upstream, ckpt)()
    check_weights(named, upstream, settings)
    encoder = Encoder(upstream, settings.device)
    task.stride = encoder.stride
    known = identity(task, plan, audio_digest(plan.examples), [lr])
    known |= {"upstream": named.upstream, "weights": encoder.fingerprint(), "seed": settings.seed}

    folder = (settings.exp / f"{task.name}.s3prl").resolve()
    seconds = 0.0
    rows: list[Prediction] = []
    scores: list[dict[str, Metric]] = []
    for fold, parts in plan.folds.items():
        here = folder / fold
        filled = runner_config(task, template, settings.data, lr, fold)
        write_text(here / "config.yaml", yaml.safe_dump(filled, sort_keys=False))
        key = sha256_json([filled, known, str(ckpt), _version(root)])
        seconds += _train_and_decode(template, named, settings, here, root.resolve(), ckpt, key)
        answers = here / _filled(template.answers, {"fold": fold})
        found = _answers(task, template, [plan.examples[n] for n in parts["test"]], answers)
        scores.append(task.metrics(found))
        rows += found
    write_predictions(folder / "test.jsonl", rows)
    custom = plan.test()[0].cut.custom or {}
    weights, weights_sha256 = weights_of(upstream)
    return make_row(
        system=system,
        upstream=named.upstream,
        evaluation=task.name,
        tier=task.tier,
        weights=weights,
        weights_sha256=weights_sha256,
        data=Data(
            corpus=str(custom.get("corpus", settings.data.resolve().name)),
            split=test_split(settings.data, task.settings),
            synthetic=bool(custom.get("synthetic", False)),
            hours=sum(e.cut.duration for e in plan.test()) / 3600,
        ),
        metrics=over_folds(scores),
        cost={"wall_s": seconds},
        search=Search(lr_grid=[lr], lr=lr, selected_on="dev"),
        artifacts={
            "predictions": os.path.relpath(
                folder / "test.jsonl", row_path(settings.results, system, task.name).parent
            )
        },
        methods={"engine": f"s3prl {_version(root)}"},
        provenance=provenance.collect(sha256_json(known), known["data"], settings.seed),
    )


def load_template(task: ProbeTask) -> Template:
    """A task's `s3prl.yaml`. Raises `SslbenchError` naming the tasks that have one."""
    path = task.config_path.with_name("s3prl.yaml")
    if not path.is_file():
        raise SslbenchError(
            f"{task.name}: --engine s3prl does not know this task, but {', '.join(engine_tasks())}; "
            f"leave --engine out, or write {path} (see another task's)"
        )
    return configs.build(Template, read_yaml(path), str(path))


def engine_tasks() -> list[str]:
    """The tasks that s3prl's runner can be given."""
    (package,) = importlib.import_module("sslbench.downstream").__path__
    return sorted(path.parent.name for path in Path(package).glob("*/s3prl.yaml"))


def check_root(root: Path, template: Template) -> None:
    """Raises `SslbenchError` when the folder lacks what the template needs of s3prl."""
    wanted = ["run_downstream.py", f"downstream/{template.downstream}/expert.py", *template.needs]
    missing = [name for name in wanted if not (root / "s3prl" / name).is_file()]
    if missing:
        raise SslbenchError(
            f"--s3prl_root {root}: lacks s3prl/{', s3prl/'.join(missing)}; "
            "git clone https://github.com/s3prl/s3prl, and name the clone"
        )


def _check_data(task: ProbeTask, template: Template, data: Path) -> None:
    missing = [name for name in template.data_files if not (data / name).exists()]
    if missing:
        raise SslbenchError(
            f"{task.name}: {data}: lacks {', '.join(missing)}, which s3prl's runner reads; see "
            f"downstream/{task.name}/README.md, or leave --engine out"
        )


def _version(root: Path) -> str:
    path = root / "s3prl" / "version.txt"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "unknown"


def runner_config(
    task: ProbeTask, template: Template, data: Path, lr: float, fold: str = ""
) -> dict[str, Any]:
    """What s3prl's runner is given: the template filled in from the task's protocol.

    Args:
        task: of the wanted tier.
        template: the task's.
        data: root in the official layout.
        lr: learning rate.
        fold: name of the fold, for tasks with folds.
    """
    protocol = task.protocol
    values = {
        "data": str(data.resolve()), "lr": lr, "steps": protocol.steps, "fold": fold,
        "eval_every": min(protocol.eval_every, protocol.steps), "accumulate": template.accumulate,
        "micro_batch": max(1, protocol.batch_clips // template.accumulate),
        **task.s3prl_values(data.resolve()),
    }  # fmt: skip
    filled: dict[str, Any] = _filled(template.config, values)
    return filled


def _filled(value: Any, values: dict[str, Any]) -> Any:
    """Replace `${name}`: a whole text becomes the value itself, within a text its text."""
    if isinstance(value, dict):
        return {key: _filled(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, values) for inner in value]
    if not isinstance(value, str):
        return value
    whole = _HOLE.fullmatch(value)
    if whole:
        return values[whole[1]]
    return _HOLE.sub(lambda hole: str(values[hole[1]]), value)


def _train_and_decode(
    template: Template, named: Named, settings: ProbeSettings, folder: Path, root: Path, ckpt: Path | None,
    key: str,
) -> float:  # fmt: skip
    """Run both; what an earlier run with this key finished is not done again. Returns the seconds of both."""
    done = folder / "done.txt"
    if done.is_file():
        stored, took_s = done.read_text(encoding="utf-8").split()
        if stored == key:
            return float(took_s)
        raise SslbenchError(f"{folder}: holds another run; use another --out, or remove it")
    for left_over in folder.glob("*.ckpt"):  # of a run that was killed, maybe with other settings
        left_over.unlink()
    started = time.monotonic()
    common = ["--device", settings.device, "--seed", str(settings.seed)]
    train = ["-m", "train", "-u", named.upstream, "-d", template.downstream, *common]
    train += ["-c", str(folder / "config.yaml"), "-p", str(folder)]
    if ckpt is not None:
        train += ["-k", str(ckpt.resolve())]
    call_runner(train, folder, root)
    best = folder / template.checkpoint
    if not best.is_file():
        states = sorted(folder.glob("states-*.ckpt"), key=lambda p: int(p.stem.split("-")[1]))
        if not states:
            raise SslbenchError(f"{folder}: s3prl wrote no checkpoint; see {folder / 'train.log'}")
        best = states[-1]
    decode = ["-m", "evaluate", "-e", str(best), "-t", "test"]
    decode += ["-u", named.upstream, "--device", settings.device]
    call_runner(decode, folder, root)
    seconds = time.monotonic() - started
    write_text(done, f"{key} {seconds:.3f}\n")
    return seconds


def call_runner(words: list[str], folder: Path, root: Path) -> Path:
    """One call of s3prl's runner.

    Args:
        words: its arguments, `-m MODE` first.
        folder: of the experiment.
        root: folder that holds s3prl's package.

    Returns:
        Its output, `<mode>.log` in the folder.

    Raises:
        SslbenchError: it failed (with the end of its output).
    """
    log = folder / f"{words[1]}.log"
    command = [sys.executable, "-m", RUNNER, *words]
    places = {"PYTHONPATH": str(root), "LD_LIBRARY_PATH": str(_sox_folder(folder))}
    env = {name: os.pathsep.join(filter(None, [new, os.environ.get(name)])) for name, new in places.items()}
    with log.open("w", encoding="utf-8") as stream:
        status = subprocess.run(
            command, cwd=root / "s3prl", env={**os.environ, **env},
            stdout=stream, stderr=subprocess.STDOUT, check=False,
        ).returncode  # fmt: skip
    if status:
        tail = " | ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:])
        raise SslbenchError(f"{log}: s3prl's runner failed ({status}): {tail}")
    return log


def _sox_folder(folder: Path) -> Path:
    """A folder with libsox under the unversioned name by which torchaudio looks for it (KS reads by sox);
    distributions have that name in their development packages only."""
    link = folder / "lib" / "libsox.so"
    if not link.is_symlink():
        link.parent.mkdir(exist_ok=True)
        library = ctypes.util.find_library("sox")
        for found in Path("/usr/lib").rglob(library) if library else ():
            link.symlink_to(found)
            break
    return link.parent


def _answers(task: ProbeTask, template: Template, examples: Sequence[Any], path: Path) -> list[Prediction]:
    """Our references with its answers. Raises `SslbenchError` when it left a clip out."""
    rows = task.predictions("test", examples, [""] * len(examples))
    if isinstance(task, OwnFormat):
        answers = dict(zip([row.id for row in rows], task.read_archive(rows, path), strict=True))
    else:
        lines = path.read_text(encoding="utf-8").splitlines()
        comma = path.suffix == ".csv"  # a table of labels, which our rows join by ", "
        pairs = [line.partition("," if comma else " ") for line in lines]
        answers = {name: text.replace(",", ", ") if comma else text for name, _, text in pairs}
    pattern, replacement = template.ids or ("", "")
    theirs = {row.id: re.sub(pattern, replacement, row.id) for row in rows}
    missing = [row.id for row in rows if theirs[row.id] not in answers]
    if missing:
        raise SslbenchError(f"{path}: lacks {len(missing)} of {len(rows)} clips, first {missing[0]}")
    return [replace(row, hyp=answers[theirs[row.id]]) for row in rows]
