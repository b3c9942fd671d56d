"""Print, as Markdown, the adapter parameters on ESMFold's language model: closed form against the model itself.

python scripts/folding_counts.py            # no weights: the model is built on the meta device
"""

import sys
from typing import Any, cast

import torch
from transformers import EsmConfig, EsmForProteinFolding
from transformers.models.esm.configuration_esm import EsmFoldConfig, get_default_vocab_list

from lorta.config.compose import compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems
from lorta.config.places import CONF
from lorta.geometry import Geometry
from lorta.models.backbone import Backbone

CASES = (("lora", 1), *(("lorta", rank) for rank in (1, 2, 4, 8, 16, 32, 64)))
PROJECTIONS = ["q", "k", "v", "o"]
LANGUAGE_MODEL = {  # config.json of facebook/esm2_t36_3B_UR50D, which is ESMFold v1's (Lin et al. 2023, table S1)
    "vocab_size": 33,
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 40,
    "intermediate_size": 10240,
    "max_position_embeddings": 1026,
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": False,
    "token_dropout": True,
    "mask_token_id": 32,
    "pad_token_id": 1,
}
HEADER = "| adapter | rank | parameters | on the model | of LoRA r=1 |\n|---|---:|---:|---:|---:|"


def esmfold() -> Backbone:
    """Return ESMFold v1 on the meta device; the defaults of EsmFoldConfig are its trunk's."""
    config = EsmConfig(
        **cast(Any, LANGUAGE_MODEL),
        is_folding_model=True,
        esmfold_config=EsmFoldConfig(),
        vocab_list=get_default_vocab_list(),
    )
    with torch.device("meta"):
        model = EsmForProteinFolding(config)
    return Backbone(model, cast(Any, None), Geometry.from_config(config.to_dict()))


def count(name: str, rank: int) -> tuple[int, int]:
    """Return (closed form, weights that the attached model trains) of an adapter as conf/adapter has it, on q,k,v,o."""
    problems = Problems()
    overrides: dict[str, list[Any]] = {"adapter": [name], "rank": [rank], "adapter.projections": [PROJECTIONS]}
    (cell,) = compose_cells(overrides, CONF, problems)
    backbone, adapter = esmfold(), build(cell.config["adapter"])
    backbone.model.requires_grad_(False)
    model = adapter.attach(backbone, "FEATURE_EXTRACTION")
    return adapter.parameters(backbone.geometry), sum(w.numel() for w in model.parameters() if w.requires_grad)


def main() -> int:
    """Print the table; a closed form that misses the model's count gives status 1."""
    model: Any = esmfold().model
    sizes = (sum(weight.numel() for weight in part.parameters()) for part in (model.esm, model))
    print("Frozen weights: {:,} in the language model, {:,} in all of ESMFold.\n".format(*sizes))
    counts = {case: count(*case) for case in CASES}
    unit = counts["lora", 1][0]
    print(HEADER)
    for (name, rank), (formula, held) in counts.items():
        print(f"| {name} | {rank} | {formula:,} | {held:,} | {formula / unit:.4f} |")
    return int(any(formula != held for formula, held in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
