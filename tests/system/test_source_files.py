"""Finished runs of other code are told from those of this code, by the files that their numbers come from."""

import subprocess
from dataclasses import asdict, replace

import pytest

from lorta.records.sections import Code
from lorta.system import provenance, source_files
from lorta.system.source_files import other_code, other_code_sentences, roots_of, sources_sha256
from tests.system.test_provenance import git

CONFIG = {
    "adapter": {"_target_": "lorta.api.peft.Adapter", "config": {"_target_": "baselines.mine.Config", "r": 4}},
    "task": {"_target_": "experiments.glue.Task", "name": "glue/sst2"},
}
FILES = {
    "lorta/runner/execute.py": "from lorta.models import load\nfrom lorta.reporting.report import write\n",
    "lorta/models/__init__.py": "",
    "lorta/models/load.py": "x = 1\n",
    "lorta/api/peft.py": "def attach():\n    import peft\n",
    "lorta/reporting/report.py": "x = 1\n",
    "baselines/mine.py": "from baselines.shared import (\n    a,\n    b,\n)\n",
    "baselines/shared.py": "x = 1\n",
    "baselines/another.py": "x = 1\n",
    "experiments/glue.py": "x = 1\n",
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A clone of a small project, committed, and taken for this one."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=Begin")
    for module in (provenance, source_files):
        monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    monkeypatch.setattr(source_files, "ROOT", tmp_path)
    monkeypatch.setattr(source_files, "PACKAGE", tmp_path / "lorta")
    forget()
    yield tmp_path
    forget()


def forget():
    """What a process reads once: the next command is another process."""
    for function in (provenance.code, provenance.why_no_commit, source_files.source_files):
        function.cache_clear()
    source_files._digest.cache_clear()
    source_files._changed_since.cache_clear()


def recorded():
    """The record's section of a run that is done now."""
    return asdict(replace(provenance.code(), sources_sha256=sources_sha256(CONFIG)))


def edit(checkout, name):
    (checkout / name).write_text(FILES[name] + "y = 2\n")
    forget()


def test_files_are_those_of_the_method_the_task_and_what_they_import(checkout):
    without_report = sorted(FILES.keys() - {"lorta/reporting/report.py", "baselines/another.py"})
    assert list(source_files.source_files(roots_of(CONFIG))) == without_report


@pytest.mark.parametrize("name", ["baselines/mine.py", "baselines/shared.py", "lorta/models/load.py"])
@pytest.mark.parametrize("older", [False, True])
def test_an_edited_file_that_moves_the_numbers_is_named(checkout, name, older):
    done = recorded() | ({"sources_sha256": None} if older else {})
    assert other_code(done, CONFIG) is None
    edit(checkout, name)
    commit = git(checkout, "rev-parse", "HEAD")[:12]
    assert other_code(done, CONFIG) == f"other code, commit {commit} ({name} differs)"
    git(checkout, "commit", "--quiet", "--all", "--message=Edit")
    forget()
    assert other_code(done, CONFIG) == f"other code, commit {commit} ({name} differs)"


@pytest.mark.parametrize("name", ["baselines/another.py", "lorta/reporting/report.py"])
def test_other_methods_and_tables_are_no_other_code(checkout, name):
    done = recorded()
    edit(checkout, name)
    assert other_code(done, CONFIG) is None
    assert other_code(done | {"sources_sha256": None}, CONFIG) is None


def test_uncommitted_code_is_told_from_its_next_version(checkout):
    edit(checkout, "baselines/mine.py")
    done = recorded()
    assert other_code(done, CONFIG) is None
    (checkout / "baselines/mine.py").write_text("z = 3\n")
    forget()
    assert "with uncommitted changes (baselines/mine.py differs)" in (other_code(done, CONFIG) or "")


def test_unknown_code_is_not_clean(checkout, monkeypatch):
    assert other_code(None, CONFIG) == "unknown code"
    old = Code(package_version="0.1", git_sha=None, git_dirty=None, diff_sha256=None)
    assert other_code(asdict(old), CONFIG) == "unknown code"
    assert "which files differ is not known" in (other_code(asdict(replace(old, git_sha="f" * 40)), CONFIG) or "")


def test_without_git_the_files_still_tell(checkout):
    subprocess.run(["rm", "-r", checkout / ".git"], check=True)
    forget()
    done = recorded()
    assert (done["git_sha"], other_code(done, CONFIG)) == (None, None)
    edit(checkout, "baselines/shared.py")
    assert other_code(done, CONFIG) == "other code, of no commit"


def test_sentences_count_the_most_frequent_first():
    assert other_code_sentences([None, "b", "a", "b"]) == [
        "2 of 4 done runs were done by b: runtime.force=true runs them again",
        "1 of 4 done runs were done by a: runtime.force=true runs them again",
    ]
    assert other_code_sentences([None, None]) == []
