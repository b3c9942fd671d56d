"""`--conf FOLDER`: adapters, tasks and their code outside of the package, for every command that takes overrides."""

import os
import subprocess
import sys

import pytest

from lorta.cli.main import main
from lorta.cli.own_folders import take_own_folders
from lorta.config.places import CONF, own_folders

METHOD = """
from lorta.api.peft_adapter import PeftAdapter
class Mine(PeftAdapter):
    pass
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a method whose class is in a file beside it, and a suite of tasks."""
    (tmp_path / "mine" / "adapter").mkdir(parents=True)
    (tmp_path / "mine" / "task").mkdir()
    text = (CONF / "adapter" / "lora.yaml").read_text()
    text = text.replace("name: lora\n", "name: my_lora\n").replace(
        "lorta.api.peft_adapter.PeftAdapter", "my_method.Mine"
    )
    (tmp_path / "mine" / "adapter" / "my_lora.yaml").write_text(text)
    (tmp_path / "mine" / "my_method.py").write_text(METHOD)
    (tmp_path / "mine" / "task" / "two.yaml").write_text("suite: [glue/rte, glue/mrpc]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path / "mine"


@pytest.mark.parametrize("flag", [["--conf", "mine"], ["--conf=mine"]])
def test_the_flag_stands_anywhere(flag, mine, capsys):
    assert main(["plan", "adapter=my_lora", *flag, "task=two"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("my_lora") == 2 and "glue/mrpc" in printed
    assert own_folders() == (mine,)


def test_without_it_nothing_of_the_folder_is_known(mine, capsys):
    assert main(["plan", "adapter=my_lora"]) == 2
    assert "adapter=my_lora: no such adapter" in capsys.readouterr().err


def test_the_variable_reaches_other_processes(mine):
    take_own_folders(["--conf", "mine"])
    code = "import lorta.config, my_method; print(my_method.Mine.__name__)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, cwd="/", capture_output=True, text=True)
    assert done.stdout == "Mine\n", done.stderr


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [(["--conf", "nowhere"], "--conf nowhere: no such folder"), (["--conf"], "--conf: a folder is needed")],
)
def test_a_wrong_folder_is_one_sentence(flag, sentence, mine, capsys):
    for command in ("plan", "run"):
        assert main([command, *flag]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["plan", *flag]) == 2
    assert sentence in capsys.readouterr().err


def test_a_name_that_is_taken_is_refused(mine, capsys):
    (mine / "adapter" / "lora.yaml").write_text("name: lora\n")
    assert main(["plan", "--conf", "mine"]) == 2
    assert "lora.yaml is also adapter=lora: give yours another name" in capsys.readouterr().err
