from collections import Counter
from pathlib import Path

from lorta.reporting.styles import COLOURS, family_place, named_methods, printed_label, printed_name, style_of

ADAPTERS = sorted(file.stem for file in (Path(__file__).parents[2] / "conf" / "adapter").glob("*.yaml"))


def test_every_adapter_has_a_style_of_its_own():
    shared = {style: count for style, count in Counter(map(style_of, ADAPTERS)).items() if count > 1}
    assert not shared, "append the new adapter to conf/figures.yaml"


def test_named_methods_differ_in_grey():
    greys = [style_of(name)[1:] for name in named_methods()]
    assert len(set(greys)) == len(greys)


def test_named_methods_are_named_once():
    assert len(set(named_methods())) == len(named_methods())


def test_first_methods_keep_their_colours():
    colours = [style_of(name).colour for name in ("lora", "lorta", "vera", "loretta_rep")]
    assert colours == list(COLOURS[:4])


def test_an_unknown_method_has_one_style_and_it_is_no_named_one():
    unknown = [f"method {number}" for number in range(200)]
    named = {style_of(name) for name in named_methods()}
    assert not named & {style_of(name) for name in unknown}
    assert len({style_of(name) for name in unknown}) > 100


def test_every_adapter_has_the_name_that_papers_print():
    assert set(ADAPTERS) <= set(named_methods()), "append the new adapter to conf/figures.yaml"
    assert [printed_name(name) for name in ("lorta", "loretta_rep", "metatt_4d")] == [
        "LoRTA",
        "LoRETTA_rep",
        "MetaTT-4D",
    ]
    assert printed_name("lorta", 11) == "LoRTA (r=11)"
    assert printed_name("mine", None, "warmup=0.5") == "mine (warmup=0.5)"


def test_labels_of_tables_are_printed_as_names_are():
    labels = ["lorta r=11", "full", "mine r=2 (warmup=0.5)", "vera (warmup=0.5)"]
    assert [printed_label(label) for label in labels] == [
        *("LoRTA (r=11)", "Full FT", "mine (r=2, warmup=0.5)", "VeRA (warmup=0.5)")
    ]


def test_families_have_known_methods_and_none_twice():
    placed = [name for name in named_methods() if family_place(name)[0] < family_place("mine")[0]]
    assert len({family_place(name) for name in placed}) == len(placed) > 40
    assert family_place("full") < family_place("lora") < family_place("lorta") < family_place("vera")
