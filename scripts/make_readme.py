"""Put the headline of a committed suite into README.md, between its two markers: verdicts, a table, and a figure.

python scripts/make_readme.py
"""

import re
from pathlib import Path

from lorta.analysis.item_scores import items_file, read_items
from lorta.records.store import read_export
from lorta.reporting.headline import headline

ROOT = Path(__file__).resolve().parents[1]
HEADLINE = "minilm_study"  # the only place that names the suite; then: make tables pages
MARKED = re.compile(r"(<!-- headline -->\n).*?(<!-- end of headline -->)", flags=re.DOTALL)


def text(name: str = HEADLINE) -> str:
    """Return the headline of a suite. Raises ValueError when its records are not committed."""
    files = [file for file in (ROOT / "results" / "records").glob("*.jsonl*") if file.name.split(".")[0] == name]
    if not files:
        raise ValueError(f"results/records has no {name}.jsonl.gz: commit the records of the suite first.")
    records = read_export(files[0])
    items = read_items(items_file(ROOT / "results", name), records)
    return headline(records, items, name, files[0].name)


def main() -> None:
    """Rewrite README.md with the headline as it is now."""
    readme, new = ROOT / "README.md", text()
    readme.write_text(MARKED.sub(lambda match: f"{match.group(1)}{new}{match.group(2)}", readme.read_text()))


if __name__ == "__main__":
    main()
