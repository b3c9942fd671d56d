"""Where the projections of a transformer sit: one row per architecture, no torch.

An adapter speaks of roles (q, k, v, o, gate, up, down); this table knows the module names and shapes behind them.
A `config` below is the content of a model's `config.json`, as a mapping.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

ROLES = ("q", "k", "v", "o", "gate", "up", "down")  # the canonical order; LoRTA's matrix mode is indexed by it

USUAL_KEYS = {  # our name -> the name in most `config.json` files
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "intermediate": "intermediate_size",
    "layers": "num_hidden_layers",
}


@dataclass(frozen=True)
class Architecture:
    """One row: where each role sits, and which modules are the classification head."""

    modules: Mapping[str, str | tuple[str, ...]]  # role -> module path, "{}" is the layer number; one path per stack
    head: tuple[str, ...]  # modules that a classification task adds, and others that a checkpoint lacks
    norms: str  # regular expression that matches the paths of all normalisation layers
    embedding_norm: bool = True  # a LayerNorm after the embeddings
    pooler: bool = False  # a pooler inside the backbone, with hidden x hidden weights and a bias
    biases: bool | None = True  # each projection and norm has one; None: some have, BitFit then has no closed form
    # roles with the same path share one module: outputs of one role after the other, or q, k, v of one head at a time
    fused: Literal["roles", "heads"] = "roles"
    keys: Mapping[str, str] = field(
        default_factory=dict[str, str]
    )  # our name -> name in config.json, where it is unusual
    stacks: tuple[str, ...] = ()  # config.json's number of layers behind each path of a role; () for a single stack
    causal: bool = False  # whether the class predicts the next token: a decoder that can be trained to answer
    cross: tuple[int, ...] = ()  # the stacks of attention whose k and v read another input than q
    transposed: bool = False  # projections are transformers' Conv1D, which holds the transposed weight of a Linear
    layer_norms: tuple[int, ...] | None = (2,)  # normalisation layers in a layer of each stack; None: not counted
    outer_norms: int = 1  # those before the first and after the last layer
    norm_biases: bool = True  # a normalisation layer has one: LayerNorm, not RMSNorm
    head_norms: bool = False  # queries and keys of each head are normalised as well

    def paths(self, role: str) -> tuple[str, ...]:
        """Return the module paths of a role, one per stack of layers."""
        paths = self.modules[role]
        return (paths,) if isinstance(paths, str) else paths

    def in_head(self, path: str) -> bool:
        """Return whether a module or parameter belongs to the head; `path` is that in the model without an adapter."""
        return any(path == module or path.startswith(f"{module}.") for module in self.head)

    def sharing(self, role: str) -> tuple[str, ...]:
        """Return the roles in the same module as this one, itself included, in canonical order."""
        return tuple(other for other in ROLES if self.modules.get(other) == self.modules[role])


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


def _fused(layer: str, qkv: str, o: str, up: str, down: str) -> dict[str, str]:
    return dict.fromkeys("qkv", f"{layer}.{qkv}") | {
        "o": f"{layer}.{o}",
        "up": f"{layer}.{up}",
        "down": f"{layer}.{down}",
    }


def _encoder_decoder(feedforward: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """T5: every attention block counts as a layer: the encoder's, the decoder's own, then those across."""
    blocks = (
        "encoder.block.{}.layer.0.SelfAttention",
        "decoder.block.{}.layer.0.SelfAttention",
        "decoder.block.{}.layer.1.EncDecAttention",
    )
    dense = ("encoder.block.{}.layer.1.DenseReluDense", "decoder.block.{}.layer.2.DenseReluDense")
    return {role: tuple(f"{block}.{role}" for block in blocks) for role in "qkvo"} | {
        role: tuple(f"{block}.{name}" for block in dense) for role, name in feedforward.items()
    }


def _t5(feedforward: Mapping[str, str]) -> Architecture:
    return Architecture(
        _encoder_decoder(feedforward),
        ("classification_head",),
        r".*layer_norm",
        embedding_norm=False,
        biases=False,
        keys={
            "hidden": "d_model",
            "heads": "num_heads",
            "head_dim": "d_kv",
            "intermediate": "d_ff",
            "layers": "num_layers",
        },
        stacks=("num_layers", "num_decoder_layers", "num_decoder_layers"),
        cross=(2,),
        layer_norms=(2, 2, 1),
        outer_norms=2,
        norm_biases=False,
    )


_BERT = _encoder("encoder.layer", "query", "key", "value")
_DECODER = {role: f"layers.{{}}.self_attn.{role}_proj" for role in "qkvo"} | {
    role: f"layers.{{}}.mlp.{role}_proj" for role in ("gate", "up", "down")
}
_PHI3 = (
    _DECODER
    | dict.fromkeys("qkv", "layers.{}.self_attn.qkv_proj")
    | dict.fromkeys(("gate", "up"), "layers.{}.mlp.gate_up_proj")
)
_VIT = {role: f"layers.{{}}.attention.{role}_proj" for role in "qkvo"} | {
    "up": "layers.{}.mlp.fc1",
    "down": "layers.{}.mlp.fc2",
}
_GPT2 = _fused("h.{}", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_NEOX = _fused("layers.{}", "attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
_LLAMA_NORMS = r"(^|.*\.)(\w*layernorm|norm)"
_LLAMA = Architecture(
    _DECODER, ("score",), _LLAMA_NORMS, embedding_norm=False, biases=False, causal=True, norm_biases=False
)
_ESM = Architecture(_BERT, ("classifier",), r".*(LayerNorm|emb_layer_norm_\w+)", biases=None)
_FOLDING_TRUNK = Architecture(
    _fused("trunk.blocks.{}", "seq_attention.proj", "seq_attention.o_proj", "mlp_seq.mlp.1", "mlp_seq.mlp.3"),
    (),
    r"trunk\.blocks\..*(layer_?norm(_\w+)?|mlp\.0)",
    biases=None,
    fused="heads",
    keys={"hidden": "sequence_state_dim", "head_dim": "sequence_head_width", "layers": "num_blocks"},
    layer_norms=None,
)

ARCHITECTURES: dict[str, Architecture] = {
    "roberta": Architecture(_BERT, ("classifier",), r".*LayerNorm"),
    "xlm-roberta": Architecture(_BERT, ("classifier",), r".*LayerNorm"),
    "bert": Architecture(_BERT, ("classifier",), r".*LayerNorm", pooler=True),
    "deberta-v2": Architecture(
        _encoder("encoder.layer", "query_proj", "key_proj", "value_proj"),
        ("pooler", "classifier"),
        r".*LayerNorm",
        biases=None,
    ),
    "esm": _ESM,
    "esmfold": replace(
        _ESM,
        modules={role: f"esm.{path}" for role, path in _BERT.items()},
        head=(),
        norms=rf"esm\.{_ESM.norms}",
    ),
    "esmfold-trunk": _FOLDING_TRUNK,  # ESMFold whose config says adapted_part: trunk
    "vit": Architecture(_VIT, ("classifier",), r".*layernorm\w*", embedding_norm=False, biases=None),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": replace(_LLAMA, biases=None),
    "qwen3": replace(_LLAMA, norms=r"(^|.*\.)(\w*layernorm|\w*norm)", head_norms=True),
    "phi3": replace(_LLAMA, modules=_PHI3),
    "gpt2": Architecture(
        _GPT2,
        ("score",),
        r".*ln_[12f]",
        embedding_norm=False,
        biases=None,
        keys={"hidden": "n_embd", "heads": "n_head", "layers": "n_layer", "intermediate": "n_inner"},
        causal=True,
        transposed=True,
    ),
    "gpt_neox": Architecture(
        _NEOX, ("score",), r".*(layernorm|layer_norm)", embedding_norm=False, biases=None, fused="heads", causal=True
    ),
    "t5": _t5({"up": "wi", "down": "wo"}),
    "t5-gated": _t5({"gate": "wi_0", "up": "wi_1", "down": "wo"}),  # model_type t5 with a gated feed_forward_proj
}


@dataclass(frozen=True)
class Geometry:
    """The numbers that parameter counts are made of. All are counts; widths are in features."""

    model_type: str
    layers: int  # attention blocks: an encoder-decoder has one a layer in the encoder and two in the decoder
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    architecture: Architecture = field(repr=False, compare=False)
    stack_sizes: tuple[int, ...] = field(default=(), repr=False)
    norm_weights: int | None = field(default=None, repr=False)  # of all normalisation layers; None: not known

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Geometry":
        """Read a model's `config.json`. Raises ValueError for an architecture that has no row."""
        model_type, row = str(config.get("model_type")), _row(config)
        if row not in ARCHITECTURES:
            raise ValueError(
                f"no row for model_type '{row}' in lorta/geometry.py: add one to ARCHITECTURES "
                f"(module paths of {', '.join(ROLES)}, and the head); known: {', '.join(ARCHITECTURES)}"
            )
        architecture = ARCHITECTURES[row]
        if row == "esmfold-trunk":
            config = config["esmfold_config"]["trunk"]
        value = {name: config.get(key) for name, key in (USUAL_KEYS | dict(architecture.keys)).items()}
        hidden = int(value["hidden"] or 0)
        heads = int(value["heads"] or hidden // int(value["head_dim"] or hidden))
        sizes = tuple(int(config[key]) for key in architecture.stacks) or (int(value["layers"] or 0),)
        head_dim = int(value["head_dim"] or hidden // heads)
        return cls(
            model_type=model_type,
            layers=sum(sizes),
            hidden=hidden,
            heads=heads,
            kv_heads=int(value["kv_heads"] or heads),
            head_dim=head_dim,
            intermediate=int(value["intermediate"] or 4 * hidden),  # GPT-2 leaves n_inner empty, ESMFold has no key
            architecture=architecture,
            stack_sizes=sizes,
            norm_weights=_norm_weights(architecture, sizes, hidden, head_dim, _optional_norms(row, config)),
        )

    def roles(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Return the wanted roles in canonical order.

        Raises ValueError for a role this architecture lacks, and for a part of the roles that share a module.
        """
        wanted, known = tuple(wanted), self.architecture.modules
        missing = [role for role in wanted if role not in known]
        if missing:
            raise ValueError(
                f"{self.model_type} has no projection {', '.join(missing)}; it has "
                f"{', '.join(role for role in ROLES if role in known)}"
            )
        for role in wanted:
            shared = self.architecture.sharing(role)
            if not set(shared) <= set(wanted):
                raise ValueError(
                    f"{self.model_type} has {', '.join(shared)} in one module: take all of them or none, "
                    f"not {', '.join(wanted)} alone"
                )
        return tuple(role for role in ROLES if role in wanted)

    def shape(self, role: str) -> tuple[int, int]:
        """Return (inputs, outputs) of a projection, in features; of its own part where several share a module."""
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

    def module_shapes(self, roles: Iterable[str]) -> list[tuple[int, int]]:
        """Return (inputs, outputs) of every module that holds one of the roles, over all layers."""
        shapes: list[tuple[int, int]] = []
        wanted = self.roles(roles)
        for role in wanted:
            shared = self.architecture.sharing(role)
            if role == shared[0]:
                shape = (self.shape(role)[0], sum(self.shape(part)[1] for part in shared))
                shapes += [shape] * sum(self.stack_sizes[: len(self.architecture.paths(role))])
        return shapes

    def crosses(self, layer: int) -> bool:
        """Return whether keys and values of this attention block read another input than its queries."""
        starts = [sum(self.stack_sizes[:stack]) for stack in self.architecture.cross]
        sizes = [self.stack_sizes[stack] for stack in self.architecture.cross]
        return any(start <= layer < start + size for start, size in zip(starts, sizes, strict=True))

    def target_regex(self, roles: Iterable[str]) -> str:
        """Return a regular expression over full module paths for PEFT's `target_modules` (a list matches suffixes)."""
        paths = [path for role in self.roles(roles) for path in self.architecture.paths(role)]
        patterns = [path.replace(".", r"\.").replace("{}", r"\d+") for path in dict.fromkeys(paths)]
        return rf"(.*\.)?({'|'.join(patterns)})"

    def locate(self, module_path: str) -> tuple[int, tuple[str, ...]] | None:
        """Return (layer, roles) of a module path, or None when it is no projection.

        Layers count through all stacks: a decoder's first block comes after the encoder's last.
        """
        for role in self.architecture.modules:
            for stack, template in enumerate(self.architecture.paths(role)):
                pattern = re.escape(template).replace(re.escape("{}"), r"(\d+)")
                if match := re.fullmatch(rf"(?:.*\.)?{pattern}", module_path):
                    return sum(self.stack_sizes[:stack]) + int(match.group(1)), self.architecture.sharing(role)
        return None


def _norm_weights(
    architecture: Architecture, sizes: Sequence[int], hidden: int, head_dim: int, more: int
) -> int | None:
    """Return the weights of all normalisation layers, `more` of which only some models of the architecture have."""
    if architecture.layer_norms is None:
        return None
    inner = sum(size * norms for size, norms in zip(sizes, architecture.layer_norms, strict=True))
    each = hidden * (1 + architecture.norm_biases)
    of_heads = 2 * head_dim * sum(sizes) if architecture.head_norms else 0
    return (inner + architecture.outer_norms + more) * each + of_heads


def _optional_norms(row: str, config: Mapping[str, Any]) -> int:
    """Return how many normalisation layers a `config.json` switches on: ESM-2's first, DeBERTa's two."""
    if row == "deberta-v2":
        of_positions = "layer_norm" in str(config.get("norm_rel_ebd", "none")).lower()
        return of_positions + (int(config.get("conv_kernel_size") or 0) > 0)
    return int(row in ("esm", "esmfold") and bool(config.get("emb_layer_norm_before")))


def _row(config: Mapping[str, Any]) -> str:
    """Return the key of ARCHITECTURES for a `config.json`: its model_type, or a variant of it."""
    model_type = str(config.get("model_type"))
    if config.get("is_folding_model"):
        return "esmfold-trunk" if config.get("adapted_part") == "trunk" else "esmfold"
    gated = str(config.get("feed_forward_proj", "")).startswith("gated-")
    return f"{model_type}-gated" if gated else model_type


def largest_divisor(number: int, at_most: float) -> int:
    """Return the largest divisor of a number that is not above a bound. Raises ValueError for a bound below 1."""
    if at_most < 1:
        raise ValueError(f"no divisor of {number:g} is at most {at_most:g}")
    return max(size for size in range(1, int(at_most) + 1) if number % size == 0)


@dataclass(frozen=True)
class ModelContext:
    """What a method is told of the model that it shall attach to.

    Attributes:
        geometry: the shapes of the adapted part.
        task_type: PEFT's, such as SEQ_CLS or CAUSAL_LM.
        quantization: how the frozen weights are held: None, "8bit" or "4bit".
        gradient_checkpointing: whether activations are computed again in the backward pass.
        dtype: of the base's weights: "fp32" or "bf16".
    """

    geometry: Geometry
    task_type: str = "SEQ_CLS"
    quantization: str | None = None
    gradient_checkpointing: bool = False
    dtype: str = "fp32"
