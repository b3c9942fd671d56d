"""A budget becomes the nearest size that a method has, before anything heavy is imported."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from lorta.analysis.summary import summarise
from lorta.cli.main import main as lorta
from lorta.config.choices import group_options
from lorta.config.compose import compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems, parse_overrides
from lorta.config.places import CONF
from lorta.geometry import Geometry, ModelContext
from lorta.planning.budget import free_key, nearest, other_count, solve
from lorta.planning.planner import make_plan
from lorta.planning.requests import off, sentence, with_requests
from lorta.records.record import Budget, RunRecord
from lorta.reporting.tables import to_markdown
from lorta.training.metering import count_parameters
from scripts.budget_table import ROBERTA_BASE
from tests.contract.backbones import adapter, backbone
from tests.example_records import finished

TINY = Geometry.from_config(ROBERTA_BASE | {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 96})
LARGEST_TRIED = 64


def cell_of(*words):
    problems = Problems()
    (cell,) = compose_cells(parse_overrides(words, False, CONF, problems), CONF, problems)
    assert problems == []
    return cell


@pytest.mark.parametrize("name", group_options(CONF)["adapter"])
def test_no_other_value_of_the_free_key_is_nearer(name):
    cell = cell_of(f"adapter={name}", "budget=700")
    as_it_is = build(cell.config["adapter"])
    key = free_key(as_it_is)
    found = solve(cell, as_it_is, ModelContext(TINY, "SEQ_CLS"), 700)
    methods = [build(cell.node("adapter", key, value)) for value in range(1, LARGEST_TRIED)] if key else []
    methods = methods[1:] if name == "boft" else methods  # its smallest block is of two
    counts = [
        method.parameters(TINY) + other_count(method, TINY)
        for method in methods
        if method.unsupported(ModelContext(TINY, "SEQ_CLS")) is None
    ]
    if len(set(counts)) < 2:
        assert found.key is None
    else:
        assert abs(found.achieved - 700) <= min(abs(count - 700) for count in counts if count)


def test_counts_that_fall_or_have_steps_are_solved_too():
    assert nearest(lambda value: 10_000 // value, lambda value: True, 100, {}) == 100
    assert nearest(lambda value: 7 * (value // 10), lambda value: True, 70, {}) == 100  # the start of its step
    assert nearest(lambda value: 5, lambda value: True, 70, {}) is None


def test_a_refused_value_is_passed_over():
    assert nearest(lambda value: 10 * value, lambda value: value % 6 == 0, 150, {}) == 12  # as near as 18, and smaller
    assert nearest(lambda value: 10 * value, lambda value: value < 11, 990, {}) == 10


@pytest.mark.parametrize(
    ("adapter", "typed"),
    [("lora", "rank=3"), ("lorta", "rank=38"), ("pissa", "rank=3"), ("fourierft", "adapter.config.n_frequency=625")],
)
def test_a_budget_and_what_it_amounts_to_are_one_run(adapter, typed):
    (asked,) = make_plan([f"adapter={adapter}", "budget=5k", "task=glue/rte"], False, CONF).specs
    (given,) = make_plan([f"adapter={adapter}", typed, "task=glue/rte"], False, CONF).specs
    assert asked.signature == given.signature
    assert sorted(asked.overrides) == sorted(given.overrides)  # so that the run can be composed again from its record
    assert given.parameters == asked.budgets[0].achieved


def test_a_sweep_of_budgets_is_one_of_ranks_and_seeds_share_the_work():
    plan = make_plan(["adapter=lorta,vera", "budget=1k,5k,20k", "seed=0,1"], True, CONF)
    ranks = [spec.settings.rank for spec in plan.specs if spec.settings.seed == 0]
    assert ranks == [8, 38, 152, 29, 529, 2404]


def test_a_method_of_one_size_is_one_run_that_says_what_was_asked():
    plan = make_plan(["adapter=bitfit", "budget=5k,20k,3552"], True, CONF)
    (spec,) = plan.specs
    assert [(budget.asked, budget.achieved, budget.key) for budget in spec.budgets] == [
        (5000, 3552, None),
        (20000, 3552, None),
        (3552, 3552, None),
    ]
    assert [off(budget) for budget in spec.budgets] == [True, True, False]


def test_a_count_without_a_closed_form_is_said_to_be_unmatched():
    (spec,) = make_plan(["adapter=full", "budget=5k"], False, CONF).specs
    assert spec.budgets == (Budget(asked=5000, achieved=None, distance=None, key=None, value=None, counts="trained"),)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("adapter=lora rank=4 budget=5k", "leave one out"),
        ("adapter=fourierft adapter.config.n_frequency=9 budget=5k", "the budget decides adapter.config.n_frequency"),
        ("adapter=vblora adapter.budget_param=num_vectors budget=5k", "adapter.budget_param=num_vectors: no such key"),
        ("budget=abc", "budget='abc': a count of weights"),
        ("budget=1.2345k", "budget='1.2345k'"),
        ("budget=0", "budget=0"),
        ("budget=-5", "budget=-5"),
        ("budget=5k,6k", "-m"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(words, said):
    problems = make_plan(words.split(), False, CONF).problems
    assert any(said in problem for problem in problems), problems


def test_a_rank_that_decides_no_size_may_stand_beside_a_budget():
    (spec,) = make_plan(["adapter=vblora", "rank=4", "budget=20k"], False, CONF).specs
    assert (spec.settings.rank, spec.budgets[0].key) == (4, "adapter.config.num_vectors")


def test_an_adapter_that_cannot_attach_is_not_sized(capsys):
    assert lorta(["plan", "-m", "adapter=lora,bitfit", "budget=5k", "model=tiny_llama", "task=glue/rte"]) == 0
    shown = capsys.readouterr().out
    assert "not supported: bitfit" in shown
    assert "budget: lora" in shown
    assert "budget: bitfit" not in shown


def test_another_key_can_be_left_free_on_the_command_line():
    words = ["adapter=loretta_adp", "rank=2", "adapter.budget_param=adapter.config.bottleneck", "budget=3k"]
    (spec,) = make_plan(words, False, CONF).specs
    assert (spec.settings.rank, spec.budgets[0].key) == (2, "adapter.config.bottleneck")
    (budget,) = spec.budgets
    assert spec.parameters == budget.achieved - budget.other


def test_norms_that_a_method_trains_besides_are_part_of_the_size_that_is_matched():
    """LoRETTA at "5k" of adapter weights trained as many norm weights besides, and was compared with LoRTA at 5k."""
    norms = 9 * 2 * 96  # weights and biases of two in each of four layers, and one behind the embeddings
    words = ["adapter=loretta_rep", "task=glue/rte", "budget=10k"]
    (spec,) = make_plan(words, False, CONF).specs
    (budget,) = spec.budgets
    assert (budget.counts, budget.other) == ("trained", norms)
    assert budget.achieved == spec.parameters + norms
    cell = cell_of(*words)
    others = [build(cell.node("adapter", "rank", rank)).parameters(spec.geometry) + norms for rank in range(1, 40)]
    assert abs(budget.achieved - 10_000) == min(abs(size - 10_000) for size in others)


def test_the_size_below_what_else_is_trained_is_the_smallest_and_is_said_to_be_off():
    (spec,) = make_plan(["adapter=loretta_rep", "task=glue/rte", "budget=1k"], False, CONF).specs
    (budget,) = spec.budgets
    assert (budget.value, off(budget)) == (1, True)
    said = sentence("loretta_rep", budget)
    assert f"rank=1 gives {budget.achieved:,} = {spec.parameters:,} of the adapter + 1,728 other trainable" in said


def test_norms_that_the_geometry_does_not_know_are_left_out_and_the_budget_says_so():
    unknown = replace(TINY, norm_weights=None)
    cell = cell_of("adapter=loretta_rep", "budget=700")
    budget = solve(cell, build(cell.config["adapter"]), ModelContext(unknown, "SEQ_CLS"), 700)
    assert (budget.counts, budget.other) == ("adapter", 0)


@pytest.mark.parametrize("architecture", ["roberta", "llama"])
@pytest.mark.parametrize("name", ["loretta_rep", "loretta_adp", "lora", "bitfit"])
def test_what_is_trained_besides_is_what_a_model_has(name, architecture):
    method, base = adapter(name), backbone(architecture)
    if method.unsupported(ModelContext(base.geometry, "SEQ_CLS")) is None:
        built = count_parameters(method.attach(base, "SEQ_CLS"), base.geometry.architecture)
        assert built.other_trainable == other_count(method, base.geometry)


def test_rates_that_were_searched_at_other_sizes_do_not_count_as_searched():
    words = ["experiment=minilm/glue_base", "adapter=lora", "task=glue/rte", "model=tiny"]
    (typed,) = make_plan(words, True, CONF).specs
    (asked,) = make_plan([*words, "budget=20k"], True, CONF).specs
    assert (typed.rate_was_searched, asked.rate_was_searched) == (True, False)


def test_neither_budgets_nor_searches_need_torch_to_be_planned():
    code = (
        "import sys; from lorta.config.places import CONF; from lorta.planning.planner import make_plan; "
        "plan = make_plan(['adapter=lora,vblora', 'budget=5k', 'tune=lr'], True, CONF); "
        "sys.exit(len(plan.trials) != 16 or 'torch' in sys.modules or 'peft' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=CONF.parent).returncode == 0


def test_a_budget_replaces_the_ranks_of_a_recipe():
    plan = make_plan(["experiment=lorta/glue_base", "model=tiny", "task=glue/rte", "budget=5k"], True, CONF)
    assert {spec.settings.rank for spec in plan.specs if spec.settings.adapter["name"] == "lorta"} == {38}


@pytest.mark.parametrize(("text", "count"), [("10k", 10_000), ("1.5m", 1_500_000), ("2.5K", 2_500), ("1e4", 10_000)])
def test_a_budget_is_read_as_people_write_it(text, count):
    (spec,) = make_plan(["adapter=head_only", f"budget={text}"], False, CONF).specs
    assert spec.budgets[0].asked == count


def test_the_table_marks_the_size_with_what_was_asked():
    size = Budget(asked=5000, achieved=6144, distance=0.2288, key="rank", value=4)
    record = with_requests(finished(), make_plan(["adapter=lora"], False, CONF).specs[0])
    assert "requested" not in to_markdown(summarise([record]), [])
    text = to_markdown(summarise([replace(record, budgets=(size,))]), [])
    assert "1,000 [1]" in text
    assert "lora r=4: requested 5,000; rank=4 gives 6,144 (+22.9%, more than 10% off)" in text


def test_a_column_shows_the_matched_size_and_its_parts():
    size = Budget(asked=15_000, achieved=14_448, distance=-0.0368, key="rank", value=3, counts="trained", other=9_984)
    text = to_markdown(summarise([replace(finished(), budgets=(size,)), finished("lora", seed=1)]), [])
    assert "| adapter | matched size (adapter + other trainable) |" in text
    assert "| lora r=4 | 14,448 (4,464 + 9,984) |" in text
    assert "rank=3 gives 14,448 = 4,464 of the adapter + 9,984 other trainable (-3.7%)" in text


def test_a_record_from_before_budgets_is_read():
    values = json.loads(finished().to_json())
    del values["budgets"]
    assert RunRecord.from_json(json.dumps(values), "old").budgets == ()
