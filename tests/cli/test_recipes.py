"""The recipes of the paper's tables: they hold every cell of them, at the sizes that are printed."""

import pytest
from huggingface_hub import constants

from lorta.analysis.published import Line, lines, load, parameter_range
from lorta.cli.main import main
from lorta.cli.recipes import PAPER, find, recipes
from lorta.config.compose import compose_cells
from lorta.config.grids import sweep_grids
from lorta.config.instantiate import build
from lorta.config.overrides import Problems, parse_overrides
from lorta.config.places import CONF
from lorta.geometry import Geometry
from lorta.planning.planner import make_plan

LEDGER = load(PAPER)
ALL = recipes()
FULL_SIZE = [recipe for recipe in ALL if recipe.name.startswith(f"{PAPER}/")]
PAIRS = [(recipe, table) for recipe in FULL_SIZE for table in recipe.tables]
WITHOUT_RECIPE = {"transfer_times", "training_cost", "early_rank_sweep", "metamath"}
NOT_RUN = {"mt_bench", "superglue_qa/drop", "mawps"}  # judged afterwards; has no hub repository; not a task of ours
SIZES = {  # hidden, layers, heads of the models' config.json
    "roberta_base": ("roberta", 768, 12, 12, 3072),
    "roberta_large": ("roberta", 1024, 24, 16, 4096),
    "llama2_7b": ("llama", 4096, 32, 32, 11008),
    "llama2_13b": ("llama", 5120, 40, 40, 13824),
    "llama_7b": ("llama", 4096, 32, 32, 11008),
}


def geometry(model: str) -> Geometry:
    kind, hidden, layers, heads, intermediate = SIZES[model]
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    values = dict(zip(names, (hidden, layers, heads, intermediate), strict=True))
    return Geometry.from_config({"model_type": kind, **values, "num_key_value_heads": heads})


@pytest.fixture(scope="module")
def cells():
    """Per recipe: (adapter, rank, model, task) -> the adapter's configuration."""
    found = {}
    for recipe in FULL_SIZE:
        problems = Problems()
        values = parse_overrides([f"experiment={recipe.name}", "seed=0"], True, CONF, problems)
        composed = [
            cell for grid in sweep_grids(values, True, CONF, problems) for cell in compose_cells(grid, CONF, problems)
        ]
        assert problems == []
        configs = [cell.config for cell in composed]
        found[recipe.name] = {
            (
                config["adapter"]["name"],
                config["adapter"].get("rank"),
                config["model"]["name"],
                config["task"]["name"],
            ): (config["adapter"])
            for config in configs
        }
    return found


def rows(table: str) -> list[Line]:
    return [line for line in lines(LEDGER, table) if line.row.adapter is not None]


@pytest.mark.parametrize(("recipe", "table"), PAIRS, ids=lambda value: getattr(value, "name", value))
def test_a_recipe_has_every_cell_that_a_verdict_looks_for(recipe, table, cells):
    """The keys under which `lorta table` finds records; a rank that the ledger does not know may be any."""
    own = set(cells[recipe.name])
    of_any_rank = {(adapter, None, model, task) for adapter, _, model, task in own}
    asked = {
        (line.row.adapter, line.row.rank, line.row.model, column.task)
        for line in rows(table)
        for column in line.table.columns.values()
        if column.task is not None and column.task not in NOT_RUN
    }
    assert asked - own - of_any_rank == set()


@pytest.mark.parametrize(("recipe", "table"), PAIRS, ids=lambda value: getattr(value, "name", value))
def test_a_recipe_has_the_sizes_that_are_printed(recipe, table, cells):
    wrong = []
    for line in rows(table):
        allowed = parameter_range(line.row.parameters)
        if allowed is None or line.row.counted != ("adapter",) or line.row.adapter in ("full", "bitfit"):
            continue
        for (adapter, rank, model, task), config in cells[recipe.name].items():
            if (adapter, rank, model) == (line.row.adapter, line.row.rank, line.row.model):
                count = build(config).parameters(geometry(model))
                wrong += (
                    [] if allowed[0] <= count <= allowed[1] else [(adapter, rank, task, count, line.row.parameters)]
                )
    assert wrong == []


def test_every_table_has_a_recipe_or_a_reason():
    of_recipes = {table for recipe in FULL_SIZE for table in recipe.tables}
    assert set(LEDGER.tables) - of_recipes == WITHOUT_RECIPE
    assert {table for recipe in ALL for table in recipe.tables} - set(LEDGER.tables) == set()


def test_the_page_about_reproducing_names_every_table_and_recipe():
    text = (CONF.parent / "docs" / "reproduce.md").read_text()
    words = [*LEDGER.tables, *(recipe.name for recipe in ALL)]
    assert [word for word in words if f"`{word}`" not in text] == []


@pytest.mark.parametrize("recipe", FULL_SIZE, ids=lambda recipe: recipe.name)
def test_without_its_files_a_recipe_says_in_a_sentence_what_to_get(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    plan = make_plan([f"experiment={recipe.name}", "seed=0"], True, CONF)
    remedies = ("hf download", "set model.revision", "set data.root", "set task.source.revision", "pip install")
    assert plan.problems
    assert [problem for problem in plan.problems if not any(remedy in problem for remedy in remedies)] == []


@pytest.mark.parametrize("word", ["glue_base", "dpo_loss", "mt_bench", "folding", "tiny/glue_base"])
def test_a_table_stands_for_its_recipe_at_the_papers_size(word):
    found = find(word, ALL, list(LEDGER.tables))
    assert (found.name == word) or (found.name.startswith(f"{PAPER}/") and word in found.tables)


@pytest.mark.parametrize(
    ("word", "part"), [("glue_bse", "did you mean glue_base"), ("metamath", "docs/reproduce.md"), ("zzz", "lists them")]
)
def test_a_wrong_table_is_refused_with_a_remedy(word, part, capsys):
    assert main(["recipes", word]) == 2
    assert part in capsys.readouterr().err


def test_the_list_names_each_table_and_what_its_recipes_need(capsys):
    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if not line.startswith(" ")] == list(LEDGER.tables)
    assert all(any(f"  {recipe.name} " in line and recipe.needs in line for line in shown) for recipe in ALL)
