"""Which commit a record names: this checkout's, and never that of a repository around an installed package."""

import subprocess

import pytest

from lorta.system import provenance


def git(folder, *arguments):
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    command = ["git", "-C", folder, *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "inside" / "lorta").mkdir(parents=True)
    (tmp_path / "lorta").mkdir()
    (tmp_path / "lorta" / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=Begin")
    return tmp_path


def code_at(monkeypatch, checkout):
    monkeypatch.setattr(provenance, "CHECKOUT", checkout)
    provenance.code.cache_clear()
    try:
        return provenance.code()
    finally:
        provenance.code.cache_clear()


def test_a_checkout_is_of_its_commit_and_says_when_it_differs(repository, monkeypatch):
    clean = code_at(monkeypatch, repository)
    assert clean.git_sha == git(repository, "rev-parse", "HEAD") and clean.git_dirty is False
    (repository / "lorta" / "code.py").write_text("x = 2\n")
    changed = code_at(monkeypatch, repository)
    assert changed.git_sha == clean.git_sha and changed.git_dirty is True and changed.diff_sha256 is not None


@pytest.mark.parametrize("where", ["installed", "inside", "no_commit"])
def test_code_outside_a_repository_of_its_own_is_of_no_commit(repository, tmp_path_factory, monkeypatch, where):
    folder = {"installed": None, "inside": repository / "inside", "no_commit": tmp_path_factory.mktemp("new")}[where]
    if where == "no_commit":
        git(folder, "init", "--quiet")
    code = code_at(monkeypatch, folder)
    assert (code.git_sha, code.git_dirty, code.diff_sha256) == (None, None, None)


def test_a_new_file_is_part_of_the_difference(repository, monkeypatch):
    """The YAML file of a new adapter is known to no `git diff`, and its runs had a difference without a hash."""
    (repository / "conf").mkdir()
    hashes = []
    for text in ("r: 1\n", "r: 2\n"):
        (repository / "conf" / "mine.yaml").write_text(text)
        code = code_at(monkeypatch, repository)
        assert code.git_dirty is True
        hashes.append(code.diff_sha256)
    assert None not in hashes and len(set(hashes)) == 2


def test_a_sweep_of_uncommitted_code_is_told_what_follows(repository, monkeypatch):
    monkeypatch.setattr(provenance, "CHECKOUT", repository)
    assert provenance.uncommitted_sentence() is None
    (repository / "conf").mkdir()
    for name in "abcd":
        (repository / "conf" / f"{name}.yaml").write_text("r: 1\n")
    said = provenance.uncommitted_sentence()
    assert said is not None and "not committed: conf/a.yaml, conf/b.yaml, conf/c.yaml and 1 more" in said
    assert "runtime.force=true" in said
    monkeypatch.setattr(provenance, "CHECKOUT", None)
    assert provenance.uncommitted_sentence() is None


def test_a_checkout_that_git_refuses_and_a_zip_are_unknown_code(repository, tmp_path_factory, monkeypatch):
    """A dubious owner made a record without a commit look like that of an installed package, and clean."""
    refused = "fatal: detected dubious ownership in repository at '/somewhere'"

    def reason(checkout):
        monkeypatch.setattr(provenance, "CHECKOUT", checkout)
        provenance.why_no_commit.cache_clear()
        try:
            return provenance.why_no_commit(), provenance.uncommitted_sentence()
        finally:
            provenance.why_no_commit.cache_clear()

    assert reason(repository) == (None, None)
    assert reason(None)[0].startswith("no git: an installed package") and reason(None)[1] is None
    why, told = reason(tmp_path_factory.mktemp("unzipped"))
    assert why.startswith("unknown code: the code is not in a git repository") and told.startswith(why)
    monkeypatch.setattr(provenance, "_commit", lambda: None)
    monkeypatch.setattr(subprocess, "run", lambda *command, **_: subprocess.CompletedProcess(command, 128, "", refused))
    why, _ = reason(repository)
    assert "dubious ownership" in why and "safe.directory" in why and "/somewhere" not in why


CPUINFO = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\nstepping\t: 1\n"


def test_generations_of_one_name_are_told_apart():
    older, newer = (CPUINFO.format(model=model) + "\n" + CPUINFO.format(model=model) for model in (1, 17))
    assert provenance.processor_name(newer) == "AMD EPYC (cpu family 25, model 17, stepping 1)"
    assert provenance.processor_name(older) != provenance.processor_name(newer)
    assert provenance.processor_name("model name\t: Some processor\n") == "Some processor"
    assert provenance.processor_name("processor\t: 0\nCPU implementer\t: 0x41\n") is None  # ARM
