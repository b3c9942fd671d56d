"""The expressions of conf/adapter: what a value becomes on a model, when a method refuses, what is counted."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorta.api.peft_adapter import PeftAdapter
from lorta.config.places import CONF
from lorta.geometry import Geometry, ModelContext, largest_divisor
from lorta.planning.planner import make_plan

ROBERTA = {
    "model_type": "roberta",
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "intermediate_size": 36,
}
LLAMA = ROBERTA | {"model_type": "llama", "num_key_value_heads": 2}


def method(**changes):
    node = {"_target_": "peft.LoraConfig", "r": 4}
    return PeftAdapter(
        **({"name": "mine", "config": node, "projections": ["q", "down"], "param_count": {}} | RATES | changes)
    )


RATES = {"learning_rate": 1e-3, "head_learning_rate": 1e-3}


@given(st.integers(1, 500), st.integers(1, 500))
def test_the_divisor_is_the_largest_up_to_the_bound(number, at_most):
    found = largest_divisor(number, at_most)
    assert number % found == 0
    assert found <= at_most
    assert not any(number % other == 0 for other in range(found + 1, min(number, at_most) + 1))


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("divisor(gcd(sizes), 8)", 6),  # sizes 24, 36, 24, 24: gcd 12
        ("min(inputs)", 24),
        ("max(inputs) + max(outputs)", 60),
        ("r * matrices * layers", 24),
        ("hidden if biases else 0", 24),
    ],
)
def test_a_value_follows_from_the_model_and_the_count_from_the_value(formula, value):
    fitted = method(derived={"r": formula}, param_count={"per_module": "r", "shared": "1"})
    geometry = Geometry.from_config(ROBERTA)
    assert fitted.fitted(geometry)["r"] == value
    assert fitted.parameters(geometry) == 6 * value + 1
    assert fitted.config["r"] == 4


def test_the_first_condition_that_holds_gives_the_sentence():
    refusing = method(
        unsupported_if={"r > 4": "too much.", "not biases": "no biases here.", "model_type == 'llama'": "never."}
    )
    assert refusing.unsupported(ModelContext(Geometry.from_config(ROBERTA))) is None
    assert (
        refusing.unsupported(ModelContext(Geometry.from_config(LLAMA)))
        == "mine cannot attach to llama: no biases here."
    )


def test_a_condition_sees_the_fitted_value():
    refusing = method(derived={"r": "9"}, unsupported_if={"r > 4": "too much."})
    assert (
        refusing.unsupported(ModelContext(Geometry.from_config(ROBERTA))) == "mine cannot attach to roberta: too much."
    )


@pytest.mark.parametrize("key", ["derived", "unsupported_if", "param_count"])
def test_a_broken_expression_is_reported_as_it_is_written(key):
    broken = method(**{key: {"rang + 1": "a sentence."} if key == "unsupported_if" else {"per_module": "rang + 1"}})
    with pytest.raises(ValueError, match=r"^'rang \+ 1': 'rang' is not defined"):
        broken.unsupported(ModelContext(Geometry.from_config(ROBERTA))) or broken.parameters(
            Geometry.from_config(ROBERTA)
        )


def test_planning_with_any_adapter_loads_no_torch():
    code = f"""
import sys, pathlib, yaml
from lorta.geometry import Geometry, ModelContext
from lorta.config.instantiate import build
for file in pathlib.Path("conf/adapter").glob("*.yaml"):
    method = build(yaml.safe_load(file.read_text().replace("${{rank}}", "4")))
    for config in ({ROBERTA}, {LLAMA}):
        geometry = Geometry.from_config(config)
        method.unsupported(ModelContext(geometry)) or method.parameters(geometry)
print([name for name in ("torch", "peft", "transformers") if name in sys.modules])
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.stdout.strip() == "[]", finished.stderr


def test_a_method_without_a_parameter_is_not_run():
    plan = make_plan(["adapter=prompt_tuning", "adapter.config.num_virtual_tokens=0"], False, CONF)
    assert list(plan.unsupported.values()) == [
        "prompt_tuning has 0 parameters with these settings: a size in adapter.config is 0."
    ]
