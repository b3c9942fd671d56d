from collections import Counter
from pathlib import Path

from lorta.reporting.styles import COLOURS, named_methods, style_of

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
