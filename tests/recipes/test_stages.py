"""What recipes run, stage by stage, with an sslbench that only notes its words and leaves its output."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from recipe_runner import copy_recipes, run, start

NOTING = r"""#!/bin/bash
words="$*"
part=
while [ $# -gt 0 ]; do
    case "$1" in
        --out | --exp_dir) out=$2 ;;
        --num_shards) parts=$2 ;;
        --shard) part=$2 ;;
    esac
    shift
done
case "${words}" in
    "units fit"*) out=${out}/units.yaml ;;
    export*) out=${out}/card.yaml ;;
    pretrain*) out=${out}/DONE ;;
esac
if [ -n "${part}" ]; then out=${out%.jsonl.gz}.$(printf %04d-of-%04d "${part}" "${parts}").jsonl.gz; fi
mkdir -p "$(dirname "${out}")"
echo "${words}" >"${out}"
echo "${words}" >>calls
"""


@pytest.fixture
def egs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of the recipes, and the noting sslbench on the path."""
    noting = tmp_path / "bin" / "sslbench"
    noting.parent.mkdir()
    noting.write_text(NOTING)
    noting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{noting.parent}:{os.environ['PATH']}")
    return copy_recipes(tmp_path, "mini", "mini_librispeech", "librispeech", "librilight")


def calls(recipe: Path) -> list[str]:
    return sorted((recipe / "calls").read_text().splitlines())


def test_one_stage_at_a_time_walks_through_both_iterations(egs: Path) -> None:
    recipe = egs / "mini" / "ssl1"
    run(recipe, "--iterations", "2", "--stage", "2", "--stop_stage", "3")
    at_once = calls(recipe)
    assert sum(call.startswith("pretrain") for call in at_once) == 4
    (recipe / "calls").unlink()
    (recipe / "exp").rename(recipe / "exp_at_once")

    said = [run(recipe, "--iterations", "2", "--stage", n, "--stop_stage", n) for n in ("2", "3", "2", "3")]
    waits = "iteration 2 waits for exp/hubert_k2ssl/"
    assert f"{waits}upstream_it1/card.yaml: run stage 3, then stage 2 again" in said[0]
    assert f"{waits}units_it2/dev-clean.jsonl.gz: run stage 2, then stage 3 again" in said[1]
    assert not any("waits" in text for text in said[2:])
    assert calls(recipe) == at_once


def test_a_dry_run_shows_both_iterations(egs: Path) -> None:
    words = ("--iterations", "2", "--dry_run", "true", "--stage", "2")
    said = run(egs / "mini" / "ssl1", *words, "--stop_stage", "3")
    assert said.count("$ sslbench pretrain") == 4
    assert "waits" not in said
    assert "waits" in run(egs / "mini" / "ssl1", *words, "--stop_stage", "2")


def test_several_nodes_without_a_cluster_are_refused_before_the_units(egs: Path) -> None:
    done = start(egs / "librilight" / "ssl1", "--stage", "2")
    assert done.returncode == 2
    assert "--num_nodes 4: stage 3 needs cmd_backend=slurm or ssh" in done.stderr
    assert not (egs / "librilight" / "ssl1" / "calls").exists()


def test_training_sets_are_labelled_in_parts(egs: Path) -> None:
    recipe = egs / "librilight" / "ssl1"
    run(recipe, "--stages", "units", "--ngpu", "2", "--label_shards", "3")
    found = calls(recipe)
    parts = [call for call in found if "--num_shards 3 --shard" in call]
    assert [(call.split("--device ")[1].split()[0], call[-1]) for call in parts] == [
        ("cuda:0", "0"), ("cuda:0", "2"), ("cuda:1", "1"),
    ]  # fmt: skip
    whole = "--out exp/units_it1/large.jsonl.gz"
    assert f"units merge {whole} --num_shards 3" in found
    assert all(whole in call for call in parts)
    assert any("--limit_hours 100" in call for call in found if call.startswith("units fit"))
    again = run(recipe, "--stages", "units", "--ngpu", "2", "--label_shards", "3")
    assert "$ sslbench" not in again


def test_a_relative_corpus_root_is_the_callers(egs: Path) -> None:
    words = ["egs/mini_librispeech/ssl1/run.sh", "--stages", "data", "--dry_run", "true"]
    for more, root in (
        (["--corpus_root", "my/speech"], egs.parent / "my/speech"),
        (["--corpus_root=/my/speech"], Path("/my/speech")),
        ([], egs / "mini_librispeech/ssl1/downloads"),
    ):
        done = subprocess.run([*words, *more], cwd=egs.parent, capture_output=True, text=True, check=True)
        assert f"--root {root} --out data/manifests" in done.stdout


def test_help_shows_the_recipes_values(egs: Path) -> None:
    said = run(egs / "librispeech" / "ssl1", "--seed", "5", "--help")
    lines = [line.strip().split(" # ")[0].strip() for line in said.splitlines() if line.startswith("  --")]
    options = dict(line.split("=", 1) for line in lines)
    assert options["--clusters"] == "500"
    assert options["--seed"] == "5"
    assert options["--units_source"] == "mfcc"
    assert options["--test_set"] == '"test-clean test-other"'
    assert "--here" not in options


def test_no_recipe_tests_on_what_chose_the_weights(egs: Path) -> None:
    for corpus in ("mini", "mini_librispeech", "librispeech"):
        recipe = egs / corpus / "ssl1"
        said = run(recipe, "--stages", "asr", "--dry_run", "true", "--upstream", "zipformer")
        for words in (line.split() for line in said.splitlines() if "sslbench finetune" in line):
            chosen, tested = (words[words.index(f"--{kind}_manifest") + 1] for kind in ("dev", "test"))
            assert chosen != tested


def test_default_tasks_need_nothing_but_the_corpus(egs: Path) -> None:
    for corpus, task in (("mini_librispeech", "sid"), ("librispeech", "superb_asr")):
        said = run(egs / corpus / "ssl1", "--stages", "superb", "--dry_run", "true", "--upstream", "x")
        tasks = {line.split("--tasks ")[1].split()[0] for line in said.splitlines() if "superb run" in line}
        assert tasks == {task}


def test_librilights_models_are_evaluated_by_librispeechs_recipe(egs: Path) -> None:
    header = (egs / "librilight" / "ssl1" / "run.sh").read_text()
    assert 'librispeech/ssl1/run.sh --stages "asr superb report" --expdir ../../librilight/ssl1/exp' in header
    words = ["--expdir", "../../librilight/ssl1/exp", "--upstream", "zipformer_large", "--twins", "false"]
    said = run(egs / "librispeech" / "ssl1", "--stages", "asr superb", "--dry_run", "true", *words)
    assert "--system zipformer_large --ckpt ../../librilight/ssl1/exp/zipformer_large/upstream" in said


def test_espnet_is_started_once_for_all_gpus(egs: Path) -> None:
    recipe = egs / "mini" / "asr1"
    (recipe / "cmd.sh").write_text("cmd_backend=slurm\nlaunch_opts=()\n")
    said = run(recipe, "--stages", "train", "--ngpu", "4", "--dry_run", "true")
    (command,) = {line.split(" -- ")[0].split("--name")[0] for line in said.splitlines() if "launch" in line}
    assert command.split("$ ")[1].split() == [
        *("sslbench", "launch", "--backend", "slurm"), *("--ngpu", "4", "--one_process"),
    ]  # fmt: skip
