import re
from typing import Any

import pytest

from lorta.analysis.significance import analyse
from lorta.cli.main import main
from lorta.records.store import export
from lorta.reporting.plots.figures import FORMATS, draw, plot
from lorta.reporting.plots.panels import Curve, Panel, Point, score_panels
from tests.example_records import finished, sweep, the_table


def axes(figure: Any) -> Any:
    """Return the axes of the first band, without types: matplotlib's are not those of what it draws."""
    return figure.subfigs[0].axes


def band(adapters: list[str]):
    table = the_table([finished(name, parameters=100 * place) for place, name in enumerate(adapters, 1)])
    return "title", score_panels(table, analyse(table, {}))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_figure_has_the_same_bytes_every_time(tmp_path, kind):
    for name in "ab":
        plot([band(["lora", "lorta"])], tmp_path / name, [kind])
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_formats_are_what_they_are_called(tmp_path, kind, start):
    plot([band(["lora"])], tmp_path / "a", [kind])
    assert (tmp_path / f"a.{kind}").read_bytes().startswith(start)


def test_the_fonts_of_a_pdf_are_true_type(tmp_path):
    plot([band(["lora"])], tmp_path / "a", ["pdf"])
    written = (tmp_path / "a.pdf").read_bytes()
    assert b"/CIDFontType2" in written and b"/Type3" not in written


def test_methods_look_the_same_beside_any_others_and_differ_without_colour():
    (alone,), many = looks(["vera"]), looks(["lora", "bitfit", "vera", "lorta"])
    assert alone in many
    assert len({look[1:] for look in many}) == 4


def looks(adapters: list[str]) -> list[tuple[str, str, str]]:
    (axis,) = axes(draw([band(adapters)]))
    lines = [bars.lines[0] for bars in axis.containers]
    return [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines]


def test_curves_of_one_method_differ_in_the_fill_of_their_markers():
    table = the_table([finished(rank=rank, warmup=warmup) for rank in (4, 8) for warmup in (0.0, 0.5)])
    (axis,) = axes(draw([("title", score_panels(table, analyse(table, {})))]))
    lines = [bars.lines[0] for bars in axis.containers]
    assert [(line.get_marker(), line.get_fillstyle()) for line in lines] == [("o", "full"), ("o", "none")]


def test_no_bar_is_drawn_without_an_interval():
    (axis,) = axes(draw([band(["lora"])]))
    assert [bars.has_yerr for bars in axis.containers] == [False]


@pytest.mark.parametrize(("rate", "shown"), [(0.003, "0.004"), (3000, "4k")])
def test_small_numbers_are_labelled_as_they_are_and_large_ones_short(rate, shown):
    panel = Panel(
        "", "", "", (Curve("lora", "lora", (Point(rate, 1, None, None, ""), Point(2 * rate, 2, None, None, ""))),)
    )
    figure = draw([("title", [panel])])
    figure.canvas.draw()
    assert shown in {label.get_text() for label in figure.subfigs[0].axes[0].get_xticklabels()}


def test_the_front_rises_in_steps():
    table = the_table([finished("lora", value=0.5), finished("vera", value=0.9, parameters=2000)])
    (axis,) = axes(draw([("title", score_panels(table, analyse(table, {})))]))
    (front,) = [line for line in axis.lines if line.get_zorder() == 0]
    assert (front.get_drawstyle(), list(front.get_xdata())) == ("steps-post", [1000.0, 2000.0])


def test_table_command_writes_every_kind_of_plot_in_every_format_asked_for(tmp_path, capsys):
    export(sweep(), tmp_path / "records" / "x.jsonl")
    suite = str(tmp_path / "records" / "x.jsonl")
    assert main(["table", "--records", suite, "--results", str(tmp_path), "--formats", "svg,pdf"]) == 0
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    kinds = ("x", "x.costs", "x.ranks")
    assert written == sorted(f"{kind}.{ending}" for kind in kinds for ending in ("svg", "pdf"))


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path, capsys):
    export(sweep(), tmp_path / "records" / "x.jsonl")
    suite = str(tmp_path / "records" / "x.jsonl")
    assert main(["table", "--records", suite, "--results", str(tmp_path), "--formats", "png,gif"]) == 2
    assert re.search(r"--formats takes png, pdf, svg.* got gif", capsys.readouterr().err)
    assert not (tmp_path / "reports").exists()


def drawn(records, width="screen"):
    table = the_table(records)
    return draw([("title", score_panels(table, analyse(table, {})))], width)


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.subfigs[0].legends[0].get_texts()]


def test_equal_sizes_are_drawn_side_by_side():
    (axis,) = axes(drawn([finished("lora"), finished("lorta")]))
    first, second = (float(bars.lines[0].get_xdata()[0]) for bars in axis.containers)
    assert first < 1000 < second


@pytest.mark.filterwarnings("error")
def test_one_size_alone_is_drawn_with_room_to_both_sides():
    """matplotlib divided by zero, and the panel was empty and its frame open."""
    (axis,) = axes(drawn([finished(value=0.8 + seed / 100, seed=seed) for seed in range(3)]))
    assert axis.get_xlim() == (500, 2000)
    axis.figure.canvas.draw()
    assert axis.get_xlim() == (500, 2000) and len(axis.get_xticks()) > 1


def test_a_figure_says_what_its_bars_are_and_only_then():
    several = drawn([finished(value=0.8 + seed / 100, seed=seed) for seed in range(3)]).subfigs[0].legends[0]
    assert several.get_title().get_text().startswith("Bars: 95 % confidence intervals")
    one = drawn([finished()]).subfigs[0].legends[0]
    assert "Bars" not in one.get_title().get_text()


def test_the_legend_is_by_family_and_names_methods_as_papers_do():
    figure = drawn(
        [finished(name, parameters=100) for name in ("vera", "lorta", "lora")] + [finished("head_only", parameters=0)]
    )
    assert texts(figure) == ["LoRA", "LoRTA", "VeRA", "Head only (r=4), 0 adapter parameters"]


def test_many_methods_are_named_in_the_panel_and_not_in_a_legend():
    records = [finished(f"m{place}", value=0.5, parameters=100 + place) for place in range(50)]
    figure = drawn([*records, finished("lora", value=0.9, parameters=120)])
    (axis,) = axes(figure)
    assert texts(figure) == ["Pareto front"]
    assert [text.get_text() for text in axis.texts] == ["LoRA", "m0"]
    assert sum(line.get_color() == "0.75" for line in axis.lines) == 49


@pytest.mark.parametrize(("width", "inches"), [("page", 6.75), ("column", 3.25)])
def test_figures_have_the_width_of_a_page_or_a_column(width, inches):
    figure = drawn(sweep(tasks=2), width)
    assert figure.get_figwidth() == inches


def test_an_axis_ends_where_the_metric_ends():
    records = [finished(value=value, seed=seed) for seed, value in enumerate((0.8, 1.0))]
    (axis,) = axes(drawn([*records, finished("vera", value=0.4), finished("vera", value=0.9, seed=1)]))
    assert 100 < axis.get_ylim()[1] < 102
