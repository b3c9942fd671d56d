"""Write the table of results/costs/README.md from what `step_cost.py --save` measured, all runs of it.

python -m benchmarks.step_table
"""

import csv
import re
import statistics
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "results" / "costs"
HEADER = (
    "| shape | type | rank | LoRTA to LoRA | floor to LoRA | overhead | dense to LoRTA | MiB: LoRTA / LoRA / dense |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|\n"
)
MARKS = "<!-- steps -->\n", "<!-- end of steps -->"


def main() -> None:
    """Group the rows by shape and rank, and put medians over the runs, with the range, between the marks."""
    groups: dict[tuple[str, str, int], dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    with (FOLDER / "step_cost.csv").open() as stream:
        for row in csv.DictReader(stream):
            groups[row["shape"], row["dtype"], int(row["rank"])][row["method"]].append(row)
    lines = [_line(*group, methods) for group, methods in groups.items()]
    readme = FOLDER / "README.md"
    pattern = re.escape(MARKS[0]) + ".*?" + re.escape(MARKS[1])
    table = MARKS[0] + HEADER + "".join(lines) + MARKS[1]
    readme.write_text(re.sub(pattern, lambda _: table, readme.read_text(), flags=re.DOTALL))


def _line(shape: str, dtype: str, rank: int, methods: dict[str, list[dict[str, str]]]) -> str:
    lorta, floor = methods["lorta"], methods["floor"]
    peaks = [f"{float(methods[name][0]['peak_mib']):,.0f}" for name in ("lorta", "lora", "dense")]
    cells = [
        shape,
        dtype,
        str(rank),
        _spread(lorta, "to_lora"),
        _spread(floor, "to_lora"),
        _spread(lorta, "overhead_to_lora"),
        _spread(lorta, "dense_to_it"),
        " / ".join(peaks),
    ]
    return f"| {' | '.join(cells)} |\n"


def _spread(rows: list[dict[str, str]], column: str) -> str:
    values = [float(row[column]) for row in rows if row[column]]
    if not values:
        return ""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
