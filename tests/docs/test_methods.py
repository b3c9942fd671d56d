"""docs/methods.md: all methods, with the planner's counts, and of PEFT's others why they are not here."""

import re

import pytest
import yaml
from peft import PeftType

from lorta.config.choices import group_options
from lorta.config.instantiate import resolve
from lorta.config.places import CONF
from lorta.geometry import Geometry, ModelContext
from lorta.planning.sizes import sizes_of
from scripts.method_table import LLAMA_1B, PAGE, WORDS, cell_of, row_of

TEXT = PAGE.read_text()
ROWS = {
    cells[0].strip("`"): cells
    for cells in re.findall(r"^\| (`\w+`) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", TEXT, re.M)
}
FILES = sorted((CONF / "adapter").glob("*.yaml"))


def test_every_method_has_a_row_and_a_line():
    names = group_options(CONF)["adapter"]
    assert sorted(ROWS) == sorted(names) == sorted(WORDS["lines"])


@pytest.mark.parametrize("name", ["lorta", "vera", "lora_xs", "prompt_tuning"])
def test_a_row_is_what_the_script_makes(name):
    assert list(ROWS[name]) == row_of(name, ROWS[name][1])


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("lora", "36,864 / 294,912 / 14,155,776"),  # r (inputs + outputs) of 24 matrices of 768 x 768; up to r = 384
        ("lorta", "860 / 6,880 /"),
        ("tinylora", "24 /"),
        ("lora_xs", "48 / 3,072 /"),
        ("ether", "82,944 / 82,944 / 82,944"),
        ("c3a", "18,432 / 110,592 /"),  # blocks of 768, which the paper has; of 128
    ],
)
def test_sizes_on_roberta_base_are_the_closed_forms(name, cell):
    assert ROWS[name][3].startswith(cell)


def test_sizes_of_lora_on_a_grouped_query_llama():
    sizes = sizes_of(cell_of("lora"), ModelContext(Geometry.from_config(LLAMA_1B), "CAUSAL_LM"))
    each = 16 * (2048 + 2048 + 2048 + 512)  # q 2048 x 2048 and v 512 x 2048 of 16 layers
    assert sizes[:2] == (each, 8 * each)
    assert sizes.largest <= 16 * (2048 * 2048 + 2048 * 512) < sizes.largest + each


def test_each_of_pefts_methods_is_here_or_has_a_sentence():
    targets = {node["config"]["_target_"] for file in FILES if "config" in (node := yaml.safe_load(file.read_text()))}
    bases = {base.__name__ for target in targets for base in getattr(resolve(target), "__mro__", ())}
    types = resolve("peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING")
    here = {kind for kind in PeftType if types[kind].__name__ in bases}
    here |= {PeftType.ADALORA}  # made by a function
    assert {kind.value for kind in set(PeftType) - here} == set(WORDS["not_here"])
    for name, sentence in WORDS["not_here"].items():
        assert f"| `{name}` | {sentence} |" in TEXT


def test_lines_are_one_line_and_no_sentence():
    for name, line in WORDS["lines"].items():
        assert "\n" not in line, name
        assert not line.endswith("."), name
        assert len(line) < 110, name
