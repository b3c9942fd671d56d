"""Where the projections of a transformer sit: one row per architecture, no torch.

An adapter speaks of roles (q, k, v, o, gate, up, down); this table knows the module names and shapes behind them.
A `config` below is the content of a model's `config.json`, as a mapping.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ROLES = ("q", "k", "v", "o", "gate", "up", "down")  # the canonical order; LoRTA's matrix mode is indexed by it


@dataclass(frozen=True)
class Architecture:
    """One row: where each role sits, and which modules are the classification head."""

    modules: Mapping[str, str]  # role -> module path, "{}" is the layer number
    head: tuple[str, ...]  # top-level modules that a classification task adds
    norms: str  # regular expression that matches the paths of all normalisation layers
    embedding_norm: bool = True  # a LayerNorm after the embeddings
    pooler: bool = False  # a pooler inside the backbone, with hidden x hidden weights and a bias
    biases: bool = True


def _encoder(prefix: str, query: str, key: str, value: str) -> dict[str, str]:
    attention = f"{prefix}.{{}}.attention"
    return {
        "q": f"{attention}.self.{query}",
        "k": f"{attention}.self.{key}",
        "v": f"{attention}.self.{value}",
        "o": f"{attention}.output.dense",
        "up": f"{prefix}.{{}}.intermediate.dense",
        "down": f"{prefix}.{{}}.output.dense",
    }


_BERT = _encoder("encoder.layer", "query", "key", "value")
_DECODER = {role: f"layers.{{}}.self_attn.{role}_proj" for role in "qkvo"} | {
    role: f"layers.{{}}.mlp.{role}_proj" for role in ("gate", "up", "down")
}
_LLAMA = Architecture(_DECODER, ("score",), r"(^|.*\.)(\w*layernorm|norm)", embedding_norm=False, biases=False)

ARCHITECTURES: dict[str, Architecture] = {
    "roberta": Architecture(_BERT, ("classifier",), r".*LayerNorm"),
    "xlm-roberta": Architecture(_BERT, ("classifier",), r".*LayerNorm"),
    "bert": Architecture(_BERT, ("classifier",), r".*LayerNorm", pooler=True),
    "deberta-v2": Architecture(
        _encoder("encoder.layer", "query_proj", "key_proj", "value_proj"), ("pooler", "classifier"), r".*LayerNorm"
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
}


@dataclass(frozen=True)
class Geometry:
    """The numbers that parameter counts are made of. All are counts; widths are in features."""

    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    architecture: Architecture = field(repr=False, compare=False)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Geometry":
        """Read a model's `config.json`. Raises ValueError for an architecture that has no row."""
        model_type = str(config.get("model_type"))
        if model_type not in ARCHITECTURES:
            raise ValueError(
                f"no row for model_type '{model_type}' in lorta/geometry.py: add one to ARCHITECTURES "
                f"(module paths of {', '.join(ROLES)}, and the head); known: {', '.join(ARCHITECTURES)}"
            )
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        return cls(
            model_type=model_type,
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config["intermediate_size"]),
            architecture=ARCHITECTURES[model_type],
        )

    def roles(self, wanted: tuple[str, ...] | list[str]) -> tuple[str, ...]:
        """Return the wanted roles in canonical order. Raises ValueError for a role this architecture lacks."""
        missing = [role for role in wanted if role not in self.architecture.modules]
        if missing:
            raise ValueError(
                f"{self.model_type} has no projection {', '.join(missing)}; it has "
                f"{', '.join(role for role in ROLES if role in self.architecture.modules)}"
            )
        return tuple(role for role in ROLES if role in wanted)

    def shape(self, role: str) -> tuple[int, int]:
        """Return (inputs, outputs) of a projection, in features."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q": (self.hidden, query),
            "k": (self.hidden, key_value),
            "v": (self.hidden, key_value),
            "o": (query, self.hidden),
            "gate": (self.hidden, self.intermediate),
            "up": (self.hidden, self.intermediate),
            "down": (self.intermediate, self.hidden),
        }[role]

    def target_regex(self, roles: tuple[str, ...] | list[str]) -> str:
        """Return a regular expression over full module paths for PEFT's `target_modules` (a list matches suffixes)."""
        paths = [
            self.architecture.modules[role].replace(".", r"\.").replace("{}", r"\d+") for role in self.roles(roles)
        ]
        return rf"(.*\.)?({'|'.join(paths)})"

    def locate(self, module_path: str) -> tuple[int, str] | None:
        """Return (layer, role) of a module path, or None when it is no projection."""
        for role, template in self.architecture.modules.items():
            pattern = re.escape(template).replace(re.escape("{}"), r"(\d+)")
            if match := re.fullmatch(rf"(?:.*\.)?{pattern}", module_path):
                return int(match.group(1)), role
        return None
