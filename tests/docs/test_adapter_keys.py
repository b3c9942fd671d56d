"""docs/adapters.md lists every key of conf/adapter: names, types, defaults and examples are those of the code."""

import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorta.api.peft_adapter import FUNCTIONS, PeftAdapter
from lorta.config.identity import FORMER_COUNTS, FORMER_KEYS
from lorta.config.instantiate import resolve
from lorta.geometry import Architecture, Geometry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adapters.md").read_text()
FILES = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / "conf" / "adapter").glob("*.yaml")}
CLASSES: dict[str, Any] = {target: resolve(target) for target in {values["_target_"] for values in FILES.values()}}
COMMON, OF_PEFT, SINGLE = ("Keys of every method", "Keys of PEFT tuners (`PeftAdapter`)", "Keys of single methods")
TYPES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Sequence[str]: "list of text",
    Mapping[str, Any]: "mapping",
    Mapping[str, str]: "mapping",
    Mapping[str, float]: "mapping",
}


def rows(heading: str) -> dict[str, list[str]]:
    """Return key -> the other cells, of the first table below a heading."""
    below = re.split(r"^#", PAGE.split(f"# {heading}\n", 1)[1], flags=re.MULTILINE)[0]
    lines = re.findall(r"^\| (?!key|---|name)(.+) \|$", below, flags=re.MULTILINE)
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return {key.strip("`"): rest for key, *rest in cells}


DOCUMENTED = {heading: rows(heading) for heading in (COMMON, OF_PEFT, SINGLE)}
KEYS = {key: cells for table in DOCUMENTED.values() for key, cells in table.items()}
FIELDS = {field.name: field for kind in [*CLASSES.values(), PeftAdapter] for field in fields(kind)}


def test_the_page_has_the_fields_of_all_classes_and_no_other():
    assert sorted(KEYS) == sorted({"_target_", *FIELDS})


def test_a_key_stands_in_the_table_of_the_methods_that_have_it():
    every = [{field.name for field in fields(kind)} for kind in CLASSES.values()]
    common = set.intersection(*every)
    of_peft = {field.name for field in fields(PeftAdapter)} - common
    assert set(DOCUMENTED[COMMON]) == {"_target_", *common}
    assert set(DOCUMENTED[OF_PEFT]) == of_peft
    assert set(DOCUMENTED[SINGLE]) == set.union(*every) - common - of_peft


def test_no_file_has_a_key_that_is_not_on_the_page():
    assert {key for values in FILES.values() for key in values} <= KEYS.keys()


@pytest.mark.parametrize("key", sorted(FIELDS))
def test_type_and_default_are_those_of_the_field(key):
    field, (kind, default, *_) = FIELDS[key], KEYS[key]
    alternatives = [one for one in typing.get_args(field.type) if one is not type(None)]
    own = field.type if field.type in TYPES else alternatives[0]
    assert kind == TYPES[own]
    if field.default is MISSING and field.default_factory is MISSING:
        assert default == "required"
    else:
        value = field.default_factory() if field.default is MISSING else field.default
        assert yaml.safe_load(default.strip("`")) == (list(value) if isinstance(value, tuple) else value)


UNUSED = {"stage", "own_process"}  # by the files of the repository


@pytest.mark.parametrize("key", sorted({"_target_", *FIELDS} - UNUSED))
def test_each_example_is_what_a_file_says(key):
    example = yaml.safe_load(KEYS[key][-1].strip("`"))
    assert list(example) == [key]
    assert [name for name, values in FILES.items() if key in values and values[key] == example[key]] != []


def test_the_page_names_the_parts_of_a_count_and_the_functions_of_expressions():
    parts = {part for values in FILES.values() for part in values.get("param_count", {})}
    assert parts <= rows("`param_count`").keys() == {"per_module", "shared", "call", "unless"}
    named = set(re.findall(r"\w+", " ".join(rows("Names in expressions"))))
    assert set(FUNCTIONS) <= named
    of_model = {field.name for kind in (Geometry, Architecture) for field in fields(kind)}
    assert {"hidden", "heads", "head_dim", "layers", "biases", "pooler", "causal"} <= of_model & named


def test_older_names_are_those_that_are_read():
    older, newer = PAGE.split("## Older names\n")[1].split(" are read as ")
    former = [key for key in FORMER_KEYS["adapter"] if key != "count"]
    assert sorted(re.findall(r"`([\w.]+)`", older)) == sorted([*former, *(f"count.{part}" for part in FORMER_COUNTS)])
    present = {*(FORMER_KEYS["adapter"][key] for key in former), *(f"param_count.{p}" for p in FORMER_COUNTS.values())}
    assert set(re.findall(r"`([\w.]+)`", newer)) == present
