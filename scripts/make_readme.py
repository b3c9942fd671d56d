"""Put the headline of a committed suite into README.md, and a line on others, each between two markers.

python scripts/make_readme.py
"""

import re
from collections.abc import Sequence
from pathlib import Path

from lorta.analysis.item_scores import ItemScores, items_file, read_items
from lorta.records.record import RunRecord
from lorta.records.store import read_export
from lorta.reporting.headline import finding, headline

ROOT = Path(__file__).resolve().parents[1]
HEADLINE = "minilm_study"  # the only place that names the suite; then: make tables pages
FINDINGS = ("smollm2_instruct", "smollm2_dpo", "smollm2_commonsense", "smollm2_gsm8k")
MARKED = r"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"


def text(name: str = HEADLINE) -> str:
    """Return the headline of a suite. Raises ValueError when its records are not committed."""
    return headline(*_suite(name))


def findings() -> str:
    """Return a line on each of FINDINGS. Raises ValueError when the records of one are not committed."""
    return "".join(finding(*_suite(name)) for name in FINDINGS)


def _suite(name: str) -> tuple[Sequence[RunRecord], ItemScores, str, str]:
    files = [file for file in (ROOT / "results" / "records").glob("*.jsonl*") if file.name.split(".")[0] == name]
    if not files:
        raise ValueError(f"results/records has no {name}.jsonl.gz: commit the records of the suite first.")
    records = read_export(files[0])
    return records, read_items(items_file(ROOT / "results", name), records), name, files[0].name


def main() -> None:
    """Rewrite README.md with what the suites say now."""
    readme = ROOT / "README.md"
    content = readme.read_text()
    for name, new in {"headline": text(), "findings": findings()}.items():
        marked = re.compile(MARKED.format(name=name), flags=re.DOTALL)
        content = marked.sub(lambda match, new=new: f"{match.group(1)}{new}{match.group(2)}", content)
    readme.write_text(content)


if __name__ == "__main__":
    main()
