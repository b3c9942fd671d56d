"""What is wrong with a user's own adapter YAML is said in the plan, with its file, and without torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lorta.api.peft_adapter import PeftAdapter
from lorta.cli.main import main
from lorta.config.places import CONF, PACKAGE, add_own_folder
from lorta.config.signatures import Open, keys_of, node_problems
from lorta.planning.planner import make_plan

MINE = """
_target_: lorta.api.peft_adapter.PeftAdapter
name: mine
rank: ${rank}
learning_rate: 1.0e-2
head_learning_rate: 5.0e-3
projections: [q, v]
config:
  _target_: peft.LoraConfig
  r: ${rank}
  lora_alpha: 16.0
param_count: {per_module: "r * (inputs + outputs)"}
"""
WRONG = {  # change of the file -> what is said of it
    "lora_alpha: 16.0": (
        "lora_alfa: 16.0",
        "config: `lora_alfa` is no key of peft.LoraConfig; did you mean lora_",
    ),
    "r: ${rank}": ("r: eight", "config: r='eight': a whole number is needed"),
    "  lora_alpha": ("  use_dora: maybe\n  lora_alpha", "config: use_dora='maybe': true or false is needed"),
    "16.0": ("16.0\n  rank_pattern: [1]", "config: rank_pattern=[1]: a mapping or null is needed"),
    "peft.LoraConfig": (
        "peft.LoraConfg",
        "cannot import 'peft.LoraConfg': peft/__init__.py has no LoraConfg; did you mean LoraConfig",
    ),
    "  _target_: peft.LoraConfig\n": ("", "config: the key `_target_` is missing"),
    "projections: [q, v]\n": ("", "the key `projections` is missing, which lorta.api.peft_adapter.PeftAdapter needs"),
    "projections:": ("projection:", "`projection` is no key of lorta.api.peft_adapter.PeftAdapter; did you mean proj"),
    "[q, v]": ("q", "projections='q': a list is needed"),
    "[q, v] ": ("[q, w]", "adapter.projections: no role w; there are:"),
    "per_module": ("per_modul", "param_count: `per_modul` is no key of it; did you mean per_module"),
    "(inputs + outputs)": ("(input + outputs)", "'r * (input + outputs)': 'input' is not defined"),
    "r * (inputs + outputs)": ("sizes", "param_count: 'sizes' must give a number"),
    "r * (inputs": ("r / 0 * (inputs", "'r / 0 * (inputs + outputs)': division by zero"),
    "name: mine": ("name: yours", "its name is yours, and it is chosen as adapter=mine: write `name: mine`"),
    "learning_rate: 1.0e-2\n": ("", "its file lacks the key `learning_rate`, which other settings refer to"),
    "rank: ${rank}": ("rank: ${rnk}", "${rnk} refers to a key that does not exist; did you mean rank"),
    "peft_adapter.PeftAdapter": ("peft_adapter.PeftAdaptor", "has no PeftAdaptor; did you mean PeftAdapter"),
}


def planned(folder: Path, text: str):
    (folder / "adapter").mkdir(parents=True, exist_ok=True)
    (folder / "adapter" / "mine.yaml").write_text(text)
    add_own_folder(str(folder))
    return make_plan(["adapter=mine"], False, CONF)


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LORTA_CONF", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine"


def test_the_right_file_is_planned(mine):
    plan = planned(mine, MINE)
    assert plan.problems == ()
    assert plan.specs[0].parameters == make_plan(["adapter=lora"], False, CONF).specs[0].parameters


@pytest.mark.parametrize("part", WRONG)
def test_each_fault_is_a_problem_of_the_plan_that_names_the_file(part, mine):
    changed, sentence = WRONG[part]
    assert part.strip() in MINE
    problems = planned(mine, MINE.replace(part.rstrip(" "), changed, 1)).problems
    assert any(sentence in problem for problem in problems), problems
    assert all("mine" in problem and "conf/adapter/mine.yaml" not in problem for problem in problems)


def test_the_plan_reads_sources_and_imports_no_torch():
    code = (
        "import sys; from lorta.config.signatures import keys_of\n"
        "assert 'lora_alpha' in keys_of('peft.LoraConfig') and 'r' in keys_of('lorta.tuner.LortaConfig')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_what_is_read_from_the_source_is_what_the_class_takes():
    """The fields that dataclasses says, of PEFT's own configurations and of an adapter's class."""
    import dataclasses

    import peft

    for name in ("LoraConfig", "AdaLoraConfig", "PrefixTuningConfig", "OFTConfig", "IA3Config"):
        fields = {field.name for field in dataclasses.fields(getattr(peft, name)) if field.init}
        assert set(keys_of(f"peft.{name}")) == fields, name
    taken = keys_of("lorta.api.peft_adapter.PeftAdapter")
    assert set(taken) == {field.name for field in dataclasses.fields(PeftAdapter)}
    assert {name for name, key in taken.items() if key.required} >= {"name", "config", "projections", "param_count"}


def test_nothing_is_said_of_what_the_source_leaves_open():
    with pytest.raises(Open):
        keys_of("baselines.peft_methods.adalora.adalora_config")  # **settings
    assert node_problems({"_target_": "baselines.peft_methods.adalora.adalora_config", "anything": 1}) == []


def test_every_file_of_conf_is_right():
    for file in sorted((CONF / "adapter").glob("*.yaml")):
        node = yaml.safe_load(file.read_text())
        for part in (node, node.get("config") or {}):
            plain = {key: value for key, value in part.items() if "${" not in str(value)}
            filled = (*(part.keys() - plain.keys()), *(node.get("derived") or {}))
            assert "_target_" not in plain or node_problems(plain, filled) == [], file.name


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [("mine/adapter", "did you mean --conf {}/mine?"), (".", "did you mean --conf {}/mine?"), ("empty", "in it\n")],
)
def test_a_folder_too_deep_or_too_high_is_named(folder, sentence, mine, capsys):
    (mine / "adapter").mkdir(parents=True)
    (mine / "adapter" / "mine.yaml").write_text(MINE)
    (mine.parent / "empty").mkdir()
    assert main(["plan", "--conf", folder]) == 2
    said = capsys.readouterr().err
    assert "there is no adapter/NAME.yaml" in said and sentence.format(mine.parent) in said


def test_a_run_of_an_own_folder_is_read_back_with_it_or_says_how(mine, tmp_path):
    from dataclasses import replace

    from lorta.records.store import Store
    from lorta.runner.reload import reload_run
    from tests.example_records import finished

    record = finished("mine")
    record = replace(record, choices=record.choices | {"adapter": "mine"})
    Store(tmp_path / "runs").write(record)
    with pytest.raises(ValueError, match=r"adapter=mine is no file of .*set the variable LORTA_CONF=FOLDER"):
        reload_run(tmp_path / "runs" / record.run_id, CONF)


def test_rows_of_a_single_file_are_held_out_as_a_fraction(tmp_path):
    (tmp_path / "all.csv").write_text("text,label\na,x\nb,y\nc,x\nd,y\n")
    words = ["task=classification", f"data.root={tmp_path}/all.csv", "data.holdout=2"]
    (problem,) = make_plan(words, False, CONF).problems
    assert "data.holdout=2: a number of rows is taken from training" in problem
    assert "of all.csv alone give a fraction, such as data.holdout=0.1" in problem
