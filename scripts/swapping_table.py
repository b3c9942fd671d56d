"""Write results/costs/swapping.md from what `measure_swapping.py --save results/costs/swapping.csv` measured.

python scripts/swapping_table.py
"""

from pathlib import Path

from lorta.harness.swapping_table import swapping_page

FOLDER = Path(__file__).resolve().parents[1] / "results" / "costs"

if __name__ == "__main__":
    (FOLDER / "swapping.md").write_text(swapping_page(FOLDER / "swapping.csv"), encoding="utf-8")
