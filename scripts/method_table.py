"""Write docs/methods.md: what the methods of conf/adapter train, their sizes, and what of PEFT is not here.

python scripts/method_table.py          # no weights, no hub: the counts of the planner
"""

from pathlib import Path

import yaml

from lorta.config.choices import group_options
from lorta.config.compose import Cell, compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems, parse_overrides
from lorta.config.places import CONF, ROOT
from lorta.geometry import Geometry, ModelContext
from lorta.planning.budget import free_key
from lorta.planning.sizes import sizes_of
from lorta.records.store import write_atomically
from scripts.budget_table import ROBERTA_BASE

PAGE = ROOT / "docs" / "methods.md"
WORDS = yaml.safe_load(Path(__file__).with_name("methods.yaml").read_text(encoding="utf-8"))
# meta-llama/Llama-3.2-1B, config.json
LLAMA_1B = {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
LLAMA_1B |= {"head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256, "model_type": "llama"}
MODELS = {"RoBERTa-base": (ROBERTA_BASE, "SEQ_CLS"), "Llama-3.2-1B": (LLAMA_1B, "CAUSAL_LM")}
TEXT = """# Methods and their sizes

What each method of `conf/adapter` trains, and how many parameters that are, head and trained norms apart: the smallest,
the typical (what the file says, at the default `rank`, 8) and the largest size, by its knob. The largest has no more
parameters than the matrices that it adapts, and its knob is at most 131,072; of virtual tokens there are at most 512.
Counts are those of the planner, no weights are read. A dash: the method cannot attach to the model, or its count has no
closed form.
VeRA's update has at most the rank of the matrix's smaller side: a larger `rank` adds parameters and nothing else.
`python scripts/method_table.py` writes this page.

"""


def cell_of(name: str) -> Cell:
    """Return the composed configuration of a method, at the default rank, 8."""
    (cell,) = compose_cells(parse_overrides([f"adapter={name}"], False, CONF, Problems()), CONF, problems := Problems())
    if problems:
        raise SystemExit("\n".join(problems))
    return cell


def row_of(name: str, line: str) -> list[str]:
    """Return a row of the page."""
    cell = cell_of(name)
    knob = free_key(build(cell.config["adapter"]))
    cells = [f"`{name}`", line, f"`{knob.rpartition('.')[2]}`" if knob else "none"]
    for config, task_type in MODELS.values():
        sizes = sizes_of(cell, ModelContext(Geometry.from_config(config), task_type))
        cells.append(
            " / ".join("-" if size is None else f"{size:,}" for size in sizes) if sizes.typical is not None else "-"
        )
    return cells


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table of Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, ["---"] * len(header), *rows])


def main() -> None:
    """Write the page."""
    rows = [row_of(name, WORDS["lines"][name]) for name in group_options(CONF)["adapter"]]
    page = TEXT + table(["method", "what is trained", "knob", *MODELS], rows)
    page += "\n## Methods of PEFT that are not here\n\n"
    page += table(["PEFT's name", "why"], [[f"`{name}`", why] for name, why in WORDS["not_here"].items()])
    page += "\nOf LoRA's settings:\n\n"
    page += table(["setting", "why"], [[f"`{name}`", why] for name, why in WORDS["lora_not_here"].items()])
    write_atomically(PAGE, page)


if __name__ == "__main__":
    main()
