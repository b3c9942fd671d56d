"""Put the first table of results/reports/HEADLINE.md into README.md, between its two markers, without its notes.

python scripts/make_readme.py
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADLINE = "minilm_budgets"
MARKED = re.compile(r"(<!-- headline: \w+ -->\n).*?(<!-- end of headline -->)", flags=re.DOTALL)


def headline(report: str) -> str:
    """Return a report's first table without the numbers of its notes. Raises ValueError when there is none."""
    match = re.search(r"(?:^\|.*\n)+", report, flags=re.MULTILINE)
    if match is None:
        raise ValueError(f"results/reports/{HEADLINE}.md has no table: run `make tables`")
    return re.sub(r" \[\d+\](?= \|)", "", match.group(0))


def main() -> None:
    """Rewrite README.md with the table as it is now."""
    table = headline((ROOT / "results" / "reports" / f"{HEADLINE}.md").read_text())
    readme = ROOT / "README.md"
    readme.write_text(MARKED.sub(lambda match: f"{match.group(1)}{table}{match.group(2)}", readme.read_text()))


if __name__ == "__main__":
    main()
