"""What the planner composes is what Hydra composes."""

import itertools
import shutil

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lorta.config.choices import group_options
from lorta.config.compose import OF_RECIPES, compose_cells
from lorta.config.overrides import Problems, parse_overrides
from lorta.config.places import CONF
from lorta.planning.planner import make_plan


@pytest.mark.parametrize(
    "line",
    [
        "",
        "adapter=lora rank=4",
        "adapter=vera task=glue/rte trainer=smoke model=minilm seed=3",
        "adapter=lora adapter.config.lora_alpha=3.5 trainer.max_grad_norm=1.0 data.max_train_samples=7",
        "experiment=lorta/glue_base task=glue/stsb",
        "++rank=16 tracking=wandb_offline",
        "budget=10k tune=lr tune.seeds=[0,1] adapter=fourierft",
        "task=instruct adapter=lora rank=2",  # a task that chooses a model and a trainer
        "task=dpo model=minilm trainer=smoke data.max_length=99",
        "task=instruct experiment=minilm/glue_base",
        "experiment=lorta/dpo_llama2_7b",
        "task=folding",
        "task=folding model=tiny trainer=smoke adapter=lora",
        "task=folding experiment=lorta/esmfold",
    ],
)
def test_a_cell_is_what_hydra_composes(line):
    problems = Problems()
    values = parse_overrides(line.split(), False, CONF, problems)
    (cell,) = compose_cells(values, CONF, problems)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        expected = OmegaConf.to_container(compose("config", overrides=line.split()), resolve=True)
    for key in OF_RECIPES:
        expected.pop(key, None)
    assert problems == []
    assert cell.config == expected


def test_a_sweep_is_the_product_of_its_values_in_order():
    problems = Problems()
    values = parse_overrides(["adapter=lora,vera", "rank=4,8", "seed=range(0,2)"], True, CONF, problems)
    cells = compose_cells(values, CONF, problems)
    found = [(cell.config["adapter"]["name"], cell.config["rank"], cell.config["seed"]) for cell in cells]
    assert found == list(itertools.product(["lora", "vera"], [4, 8], [0, 1]))


def test_a_task_chooses_model_trainer_and_length_unless_something_nearer_does():
    (spec,) = make_plan(["task=instruct", "adapter=lora"], False, CONF).specs
    settings = spec.settings
    found = (settings.model.name, settings.trainer.per_device_train_batch_size, settings.data.max_length)
    assert found == ("tiny_llama", 16, 512)
    (spec,) = make_plan(["task=instruct", "adapter=lora", "model=tiny", "trainer=smoke"], False, CONF).specs
    assert (spec.settings.model.name, spec.settings.trainer.max_steps) == ("tiny", 4)


def test_glue_is_the_six_tasks_of_the_paper():
    plan = make_plan(["task=glue"], False, CONF)
    names = [spec.settings.task["name"] for spec in plan.specs]
    assert names == ["glue/sst2", "glue/mrpc", "glue/cola", "glue/qnli", "glue/rte", "glue/stsb"]


def test_glob_finds_every_adapter_file():
    problems = Problems()
    values = parse_overrides(["adapter=glob(*)"], True, CONF, problems)
    assert values["adapter"] == group_options(CONF)["adapter"]


def test_ranks_of_an_adapter_without_rank_are_one_run():
    plan = make_plan(["adapter=head_only", "rank=4,8,16"], True, CONF)
    assert (len(plan.specs), plan.duplicates) == (1, (2, ("rank of head_only",)))


@pytest.mark.parametrize("adapters", [["vera", "loretta_rep", "lotr"], ["lotr", "vera", "loretta_rep"]])
def test_a_recipe_gives_each_adapter_its_own_rate_at_a_budget_too(adapters):
    """Files are read once for all cells; what is solved for a budget is resolved after the last of them."""
    words = ["experiment=smollm2_gsm8k", "sweep=null", "compare=null", "model=tiny_llama", "budget=10k", "seed=0"]
    together = make_plan([*words, f"adapter={','.join(adapters)}"], True, CONF).specs
    alone = [spec for name in adapters for spec in make_plan([*words, f"adapter={name}"], True, CONF).specs]
    assert [spec.settings.adapter["name"] for spec in together] == adapters
    assert [spec.settings.trainer.learning_rate for spec in together] == [
        spec.settings.trainer.learning_rate for spec in alone
    ]
    assert [spec.run_id for spec in together] == [spec.run_id for spec in alone]


def test_an_experiment_brings_its_sweep_and_the_command_line_wins():
    arguments = ["experiment=lorta/glue_base", "model=tiny", "task=glue/rte", "adapter=lorta", "seed=0"]
    ranks = [spec.settings.rank for spec in make_plan(arguments, True, CONF).specs]
    assert ranks == [4, 8, 16]
    assert [spec.settings.rank for spec in make_plan([*arguments, "rank=2"], True, CONF).specs] == [2]


@pytest.mark.parametrize("recipe", ["lorta/glue_base", "smollm2_dpo"])
def test_without_a_recipes_sweep_only_what_is_typed_is_run(recipe):
    """One grid, and a list of them."""
    arguments = [f"experiment={recipe}", "sweep=null", "compare=null", "adapter=lora,lorta", "data.root=null"]
    arguments += ["model=tiny", "task=glue/rte"] if recipe == "lorta/glue_base" else ["model=tiny_llama"]
    plan = make_plan(arguments, True, CONF)
    settings = [spec.settings for spec in plan.specs]
    assert [(one.adapter["name"], one.rank, one.seed) for one in settings] == [("lora", 8, 0), ("lorta", 8, 0)]
    more = make_plan([*arguments, "rank=2,4", "seed=1"], True, CONF)
    assert [spec.settings.rank for spec in more.specs] == [2, 4, 2, 4]


def test_every_experiment_plans_on_the_embedded_default():
    own = {"lorta/esmfold": ["model=tiny_esmfold"], "lorta/commonsense": ["model=tiny", "task=commonsense/boolq"]}
    own["lorta/arithmetic"] = ["model=tiny", "task=gsm8k"]  # the others' rows are in no hub, nor embedded
    own["smollm2_commonsense"] = ["model=tiny", "task=commonsense/boolq"]
    for name in group_options(CONF)["experiment"]:
        words = own.get(name, [] if name.startswith("tiny/") else ["model=tiny"])
        plan = make_plan([f"experiment={name}", *words, "data.root=null", "seed=0"], True, CONF)
        assert plan.problems == (), name
        assert plan.runs, name
        assert not name.startswith("tiny/") or not plan.unsupported, name


GRIDS = """
# @package _global_
sweep:
  - {adapter: "lora,vera", rank: "4,8"}
  - {adapter: lorta, rank: 2, adapter.config.alpha: 3.0}
"""


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    """The configuration with one more experiment, `grids`, of two grids."""
    folder = tmp_path_factory.mktemp("grids") / "conf"
    shutil.copytree(CONF, folder)
    (folder / "experiment" / "grids.yaml").write_text(GRIDS.lstrip())
    return folder


def planned(conf, *words):
    plan = make_plan(["experiment=grids", *words], True, conf)
    assert plan.problems == ()
    return [(spec.settings.adapter["name"], spec.settings.rank) for spec in plan.specs]


def test_grids_of_an_experiment_are_one_sweep_and_keep_their_settings_apart(conf):
    assert planned(conf) == [("lora", 4), ("lora", 8), ("vera", 4), ("vera", 8), ("lorta", 2)]
    plan = make_plan(["experiment=grids"], True, conf)
    assert [spec.settings.adapter["config"].get("alpha") for spec in plan.specs] == [None] * 4 + [3.0]


def test_what_is_typed_wins_in_every_grid_and_methods_choose_their_grids(conf):
    assert planned(conf, "rank=16") == [("lora", 16), ("vera", 16), ("lorta", 16)]
    assert planned(conf, "adapter=lorta,vera") == [("vera", 4), ("vera", 8), ("lorta", 2)]


def test_several_experiments_keep_to_their_own_sweeps(conf):
    plan = make_plan(["experiment=grids,reference_runs", "adapter=lora", "task=glue/rte"], True, conf)
    assert [(spec.settings.rank, spec.settings.trainer.max_steps) for spec in plan.specs] == [(4, -1), (8, -1), (2, 20)]


def test_grids_refuse_what_they_do_not_have(conf):
    (problem,) = make_plan(["experiment=grids", "adapter=bitfit"], True, conf).problems
    assert problem == "adapter=bitfit: experiment=grids has no grid of it; it has: lora,vera, lorta"
    (problem,) = make_plan(["experiment=grids"], False, conf).problems
    assert problem == "experiment=grids: it is 2 grids of runs, which need -m (a sweep)"


def test_who_runs_is_no_part_of_what_is_run():
    words = ["adapter=lora", "task=glue/cola"]
    (here,) = make_plan(words, False, CONF).specs
    plan = make_plan([*words, "hydra/launcher=slurm", "hydra.launcher.setup=[module load x]"], False, CONF)
    assert plan.problems == ()
    assert plan.launcher.setup == ["module load x"]
    assert (plan.specs[0].signature, plan.specs[0].overrides) == (here.signature, here.overrides)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("adapter=melora",), 0.1),
        (("adapter=surm_circulant",), 0.25),
        (("adapter=lora",), 0.0),
        (("adapter=head_only",), 0.0),
        (("adapter=melora", "trainer.weight_decay=0"), 0.0),
    ],
)
def test_an_adapter_decays_as_its_source_says(words, expected):
    problems = Problems()
    (cell,) = compose_cells(parse_overrides(words, False, CONF, problems), CONF, problems)
    assert not problems
    assert float(cell.config["trainer"]["weight_decay"]) == expected
