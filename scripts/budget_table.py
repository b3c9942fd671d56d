"""Write results/reports/NAME.{md,csv}: what every adapter has for a budget on a model's geometry; no weights, no hub.

python scripts/budget_table.py                      # RoBERTa-base, 5k, 20k and 80k
python scripts/budget_table.py --name budgets_mine --config FOLDER/config.json --budgets 10k 1.5m
"""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from lorta.config.choices import group_options
from lorta.config.compose import compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems, parse_overrides
from lorta.config.places import CONF
from lorta.config.settings import RunSettings
from lorta.geometry import Geometry, ModelContext
from lorta.planning.budget import solve
from lorta.planning.requests import off
from lorta.records.sections import Budget
from lorta.records.store import write_atomically

# Liu et al. 2019, arXiv:1907.11692, table 9: 12 layers of 768, 12 heads, feed-forward 3072
ROBERTA_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
ROBERTA_BASE |= {"model_type": "roberta"}
HEADER = ("adapter", "asked", "solved", "value", "achieved", "other", "distance", "remark")
TEXT = """# Budgets on {name}

What `budget=` chooses for each of {count} adapters, by closed forms of everything that is trained except the head;
*other* is the part of *achieved* that is no adapter weight. The rest is as in `conf/adapter`. {far} of {rows} sizes are
more than 10% off what was asked.
`python scripts/budget_table.py` writes this table.

"""


def rows_of(name: str, budgets: Sequence[str], geometry: Geometry) -> list[tuple[object, ...]]:
    """Return one row a budget for an adapter of `conf/adapter`."""
    rows: list[tuple[object, ...]] = []
    for budget in budgets:
        words = [f"adapter={name}", f"budget={budget}"]
        (cell,) = compose_cells(parse_overrides(words, False, CONF, Problems()), CONF, problems := Problems())
        if problems:
            raise SystemExit("\n".join(problems))
        count = RunSettings.model_validate(cell.config).budget or 0
        size = solve(cell, build(cell.config["adapter"]), ModelContext(geometry), count)
        distance = "" if size.distance is None else f"{size.distance:+.1%}"
        key = "" if size.key is None else size.key.rpartition(".")[2]
        rows.append((name, size.asked, key, size.value, size.achieved, size.other, distance, _remark(size)))
    return rows


def _remark(size: Budget) -> str:
    kind = "no closed form" if size.achieved is None else "one size" if size.key is None else ""
    return ", ".join(filter(None, (kind, "more than 10% off" if off(size) and size.achieved is not None else "")))


def main() -> None:
    """Solve every adapter for every budget and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="budgets_roberta_base")
    parser.add_argument("--config", type=Path, help="config.json of the model (default: RoBERTa-base's sizes)")
    parser.add_argument("--budgets", nargs="+", default=["5k", "20k", "80k"])
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args()
    geometry = Geometry.from_config(json.loads(given.config.read_text()) if given.config else ROBERTA_BASE)
    names = group_options(CONF)["adapter"]
    rows = [row for name in names for row in rows_of(name, given.budgets, geometry)]
    csv.writer(text := io.StringIO(), lineterminator="\n").writerows([HEADER, *rows])
    cells = [[f"{item:,}" if isinstance(item, int) else str(item or "") for item in row] for row in [HEADER, *rows]]
    lines = [f"| {' | '.join(row)} |\n".replace("_", "\\_") for row in cells]
    far = sum("off" in str(row[-1]) for row in rows)
    name = given.name.removeprefix("budgets_").replace("_", "-")
    head = TEXT.format(name=name, count=len(names), far=far, rows=len(rows))
    table = head + lines[0] + "|---|---:|---|---:|---:|---:|---:|---|\n" + "".join(lines[1:])
    write_atomically(given.results / "reports" / f"{given.name}.md", table)
    write_atomically(given.results / "reports" / f"{given.name}.csv", text.getvalue())
    print(table)


if __name__ == "__main__":
    main()
