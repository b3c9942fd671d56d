"""Words in any order, sweeps without -m where nothing is run, no complaint about what nobody chose."""

import sys
import time

import pytest

from lorta.cli.main import main
from lorta.cli.run import main as run
from lorta.config.places import CONF
from lorta.planning.planner import make_plan


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "plan adapter=lora,lorta task=glue/rte",
        "plan adapter=lora,lorta -m task=glue/rte",
        "plan -m adapter=lora,lorta task=glue/rte",
        "plan adapter=lora,lorta task=glue/rte -m",
        "status adapter=lora,lorta --runs runs task=glue/rte",
    ],
)
def test_several_values_are_a_sweep_and_options_stand_anywhere(words, capsys):
    assert main(words.split()) == 0
    assert "2 runs: 0 done, 2 missing" in capsys.readouterr().out


def test_an_unknown_option_is_refused_beside_overrides(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["plan", "adapter=lora", "--nonsense", "rank=4"])
    assert stopped.value.code == 2 and "--nonsense" in capsys.readouterr().err


def test_a_sweep_is_shown_as_configuration_by_its_first_run(capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert run(["-m", "adapter=lora,vera", "rank=4,8", "--cfg", "job"]) == 0
    printed = capfd.readouterr().out
    assert "  name: lora\n" in printed and "rank: 4\n" in printed


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["task=tickets", "data.root=."], 1),
        (["task=tickets", "data.root=.", "task.primary=f1"], 1),
        (["adapter=lroa", "adapter.config.nothing=3"], 1),
        (["adapter=lroa", "task=tickets"], 2),
    ],
)
def test_an_unknown_choice_is_no_reason_to_complain_of_the_default(words, count):
    problems = make_plan(words, False, CONF).problems
    assert len(problems) == count, problems
    assert "sst2" not in " ".join(problem.partition(";")[0] for problem in problems)


def test_a_huge_grid_is_refused_as_fast_as_a_small_one():
    words = ["adapter=lora,lorta,vera", "rank=range(1,41)", "seed=range(0,40)", "trainer.warmup_ratio=0.1,1.5"]
    begun = time.process_time()
    problems = make_plan(words, True, CONF).problems
    assert time.process_time() - begun < 2.0  # 9,600 cells took over 10 s
    assert len(problems) == 1 and "trainer.warmup_ratio=1.5" in problems[0]
