"""scripts/reproduce.sh: one table from nothing, and its refusals."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("lorta", "baselines", "experiments", "conf", "scripts", "run.py", "requirements.lock", "results/published")


def reproduce(root: Path, *words: str, results: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHON": sys.executable, "RESULTS": str(results or "")}
    command = [str(root / "scripts" / "reproduce.sh"), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The code as it stands, in a repository of its own: a table refuses runs of code that is not committed."""
    root = tmp_path_factory.mktemp("copy")
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    (root / ".gitignore").write_text("__pycache__/\nruns/\ncache/\nresults/\n")
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "--message=All"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


def test_a_small_variant_is_run_collected_and_rendered_from_nothing(copy, tmp_path):
    words = ["adapter=lorta", "task=glue/rte", "seed=0", "trainer.max_steps=2", "runtime.workers=0"]
    done = reproduce(copy, "tiny/glue_tensor", *words, results=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tiny/glue_tensor: 1 run: 1 done" in done.stdout
    name = "tiny_glue_tensor"
    files = [f"records/{name}.jsonl", f"reports/{name}.md", f"reports/{name}.tex", f"reports/{name}.glue_tensor.html"]
    files += [f"figures/{name}.pdf", f"pages/{name}.html"]
    assert [file for file in files if not (tmp_path / file).is_file()] == []
    paper = (tmp_path / "reports" / f"{name}.glue_tensor.md").read_text()
    assert paper.count("no published value") == 1  # the one cell that was run: it was found


def test_a_wrong_table_costs_a_sentence_and_nothing_else(copy, tmp_path):
    done = reproduce(copy, "glue_bse", results=tmp_path / "results")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "lorta recipes: glue_bse: no table of the paper and no recipe; did you mean glue_base"
    )
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tiny/dpo", "runtime.name=mine"], "runtime.name=mine: this script sets it"),
        (["tiny/dpo", "-m"], "-m: options come before the table"),
        (["--lst"], "--lst: no such option"),
    ],
)
def test_words_that_the_script_sets_itself_are_refused(copy, words, sentence):
    done = reproduce(copy, *words)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_wrong_word_ends_before_anything_is_written(copy, tmp_path):
    done = reproduce(copy, "tiny/dpo", "rnak=4", results=tmp_path / "results")
    assert done.returncode == 2
    assert "did you mean rank" in done.stderr
    assert not (tmp_path / "results").exists()


def test_uncommitted_code_is_refused_before_hours_are_spent_on_it(copy, tmp_path):
    root = shutil.copytree(copy, tmp_path / "copy", ignore=shutil.ignore_patterns("runs", "cache"))
    (root / "conf" / "experiment" / "new.yaml").write_text("rank: 4\n")
    done = reproduce(root, "tiny/dpo")
    assert done.returncode == 2
    assert "the code has uncommitted changes" in done.stderr


PYTHON = """#!/bin/sh
case "$*" in
  *"lorta recipes"*) echo "tiny/dpo dpo_loss" ;;
  *"lorta status"*) echo "6 runs: 4 done, 2 pending" ;;
  *run.py*) exit 0 ;;
  *) exit 9 ;;
esac
"""


def test_what_has_not_ended_is_not_rendered(copy, tmp_path):
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PYTHON": str(tmp_path / "python"), "RESULTS": str(tmp_path)}
    command = [str(copy / "scripts" / "reproduce.sh"), "tiny/dpo", "hydra/launcher=slurm"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout == "tiny/dpo: 6 runs: 4 done, 2 pending; the same command renders it when all have ended\n"


def test_the_list_says_what_each_table_needs(copy):
    done = reproduce(copy, "--list")
    assert done.returncode == 0
    assert "  lorta/glue_base              a GPU; RoBERTa-base and GLUE from the hub" in done.stdout.splitlines()
