"""Grades by category, as Markdown, CSV and a radar plot. Reads verdicts, asks nobody."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.judge.journal import Journal
from experiments.judge.verdicts import HIGHEST, category_means
from lorta.reporting.styles import style_of

# in the order of MT-Bench's questions; clockwise from the top in the plot
CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
Grades = Mapping[str, Mapping[str, Mapping[str, float | int | None]]]  # model -> category -> means and counts


def read_grades(files: Mapping[str, Path]) -> Grades:
    """Return the means by category of each model's verdicts. Raises ValueError for a file without any."""
    grades: dict[str, Any] = {}
    for name, file in files.items():
        rows = list(Journal(file).rows.values()) if file.is_file() else []
        if not any("score" in row for row in rows):
            raise ValueError(f"{file}: no grades")
        judges = sorted({row["judge"] for row in rows})
        if len(judges) > 1:
            raise ValueError(f"{file}: grades of several judges ({', '.join(judges)}) have no common mean")
        grades[name] = category_means(rows)
    return grades


def markdown(grades: Grades) -> str:
    """Return a table: a row for each model, a column for each category, both turns and all; a dash where none is."""
    columns = _columns(grades)
    lines = [["model", *columns, "turn 1", "turn 2", "all", "without score"]]
    for name, by_category in grades.items():
        whole = by_category["all"]
        cells = [by_category.get(column, {}).get("score") for column in columns]
        cells += [whole["turn_1"], whole["turn_2"], whole["score"]]
        lines.append([name, *("-" if cell is None else f"{cell:.2f}" for cell in cells), str(whole["unscored"])])
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]]) + "\n"


def to_csv(grades: Grades) -> str:
    """Return one line for each model and category, not rounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", "category", "score", "turn_1", "turn_2", "scored", "unscored"])
    for name, by_category in grades.items():
        for category, row in by_category.items():
            writer.writerow(
                [name, category, *(row[key] for key in ("score", "turn_1", "turn_2", "scored", "unscored"))]
            )
    return stream.getvalue()


def _columns(grades: Grades) -> list[str]:
    categories = {category for by_category in grades.values() for category in by_category} - {"all"}
    return [name for name in CATEGORIES if name in categories] + sorted(categories - set(CATEGORIES))


def radar(grades: Grades, file: Path) -> None:
    """Write a PNG: a closed line for each model over the categories, 0 in the middle, 10 at the rim."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = _columns(grades)
    angles = [2 * math.pi * place / len(columns) for place in range(len(columns))]
    with rc_context({"font.size": 9, "font.family": "DejaVu Sans", "grid.alpha": 0.4}):
        figure = Figure(figsize=(5.2, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes: Any = figure.add_subplot(projection="polar")
        axes.set_theta_zero_location("N")
        axes.set_theta_direction(-1)
        axes.set_ylim(0, HIGHEST)
        axes.set_xticks(angles, columns)
        axes.tick_params("x", pad=12)
        for name, by_category in grades.items():
            _draw(axes, angles, [by_category.get(column, {}).get("score") for column in columns], name)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=150, metadata={"Software": None})  # the version would change the bytes


def _draw(axes: Any, angles: Sequence[float], scores: Sequence[Any], name: str) -> None:
    style = style_of(name)
    heights = [math.nan if score is None else score for score in scores]  # no score: a gap, not a zero
    axes.plot(
        [*angles, angles[0]],
        [*heights, heights[0]],
        label=name,
        color=style.colour,
        linestyle=style.line[0],
        marker=style.marker[0],
        markersize=4,
        linewidth=1.3,
    )


def write_report(files: Mapping[str, Path], folder: Path) -> str:
    """Write mt_bench.md, mt_bench.csv and mt_bench.png into a folder; return the Markdown."""
    grades = read_grades(files)
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(grades)
    (folder / "mt_bench.md").write_text(text, encoding="utf-8")
    (folder / "mt_bench.csv").write_text(to_csv(grades), encoding="utf-8")
    radar(grades, folder / "mt_bench.png")
    return text
