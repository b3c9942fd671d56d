"""Settings of a LoRTA adapter, saved beside its weights."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from lorta.peft_extension.config import ExternalConfig
from lorta.tuner.factors import HeadSide, Init, OrderName, Scaling

PEFT_TYPE = "LORTA"
Bias = Literal["none", "all", "lorta_only"]
CHOICES: dict[str, Any] = {"head_side": HeadSide, "init": Init, "scaling": Scaling, "order": OrderName, "bias": Bias}


@dataclass
class LortaConfig(ExternalConfig):
    """LoRTA settings, with PEFT's names where PEFT has one.

    The update of one projection is `scale * (A * C_H[h] * C_L[l] * C_M[m]) @ B.T` for each head h: A is (hidden, r),
    B is (head_dim, r), and C_H, C_L and C_M have one row of r numbers for each head, layer and matrix.

    Args:
        r: rank, the number of columns of every factor; at least 1.
        alpha: size of the update, above 0; see `scaling`.
        scaling: what the update is multiplied by: "alpha/r", "alpha/sqrt(r)" or "alpha".
        order: which modes the tensor has. "5_way" is the paper's; "4_way_per_matrix", "4_way_per_layer", "3_way_joint"
            and "3_way_per_matrix" are its ablations.
        target_modules: module names, or one regular expression; None: q, k, v and o of a known architecture.
        exclude_modules: modules that are not adapted although `target_modules` names them.
        layers_to_transform: numbers of the adapted layers; None: all.
        layers_pattern: name of the list of layers in a module's path, "layers" say, where there are several numbers;
            only together with `layers_to_transform`.
        modules_to_save: modules that are trained as a whole and saved; PEFT adds a classification head.
        trainable_token_indices: numbers of tokens whose embeddings are trained too, or a mapping from the names of
            embedding modules to such numbers.
        bias: which biases of the model are trained too: "none", "all", or "lorta_only", those of adapted projections.
        rank_pattern: not possible, all projections share one tensor of one rank; leave it unset.
        alpha_pattern: not possible, as `rank_pattern`.
        head_side: which side of a projection the heads divide: "natural", "input" or "output".
        init: initialisation of the factors: "rank_neutral" or "reference" (the released code).
        init_scale: at least 0; larger values mean smaller C factors.
        dropout: probability of dropout on the input of adapted projections, at least 0 and below 1.
        geometry: written when the adapter is attached; leave it unset.

    Raises:
        ValueError: a value is out of range, or not one of the choices.

    Example:
        >>> from peft import get_peft_model
        >>> from transformers import RobertaConfig, RobertaForSequenceClassification
        >>> shape = RobertaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
        >>> model = RobertaForSequenceClassification(shape)
        >>> model = get_peft_model(model, LortaConfig(r=4, task_type="SEQ_CLS"))
        >>> sum(weight.numel() for name, weight in model.named_parameters() if "lorta_" in name)
        200
        >>> 4 * (32 + 8 + 4 + 2 + 4)  # r * (hidden + head_dim + heads + layers + matrices)
        200
    """

    card_note: ClassVar[str] = "`lorta export FOLDER --to ANOTHER` writes it as a LoRA, which plain PEFT loads."

    r: int = field(default=8, metadata={"help": "Rank: columns of every factor."})
    alpha: float = field(default=8.0, metadata={"help": "Size of the update, see scaling."})
    scaling: Scaling = field(
        default="alpha/r",
        metadata={"help": "What the update is multiplied by: 'alpha/r', 'alpha/sqrt(r)' (rsLoRA) or 'alpha'."},
    )
    order: OrderName = field(
        default="5_way",
        metadata={
            "help": "Tensor order: '5_way' (the paper), '4_way_per_matrix', '4_way_per_layer', '3_way_joint' or "
            "'3_way_per_matrix' (its ablations): modes joined, or a tensor of its own for each matrix or layer."
        },
    )
    target_modules: str | list[str] | None = field(
        default=None,
        metadata={"help": "Module names or one regular expression; by default q, k, v and o of a known architecture."},
    )
    exclude_modules: str | list[str] | None = field(default=None, metadata={"help": "Modules to leave as they are."})
    layers_to_transform: list[int] | None = field(
        default=None, metadata={"help": "Numbers of the layers to adapt, all by default; only they get a row of C_L."}
    )
    layers_pattern: str | list[str] | None = field(
        default=None, metadata={"help": "Name of the list of layers, beside layers_to_transform."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules to train whole and save; a classification head is added by PEFT."}
    )
    trainable_token_indices: list[int] | dict[str, list[int]] | None = field(
        default=None, metadata={"help": "Tokens whose embeddings are trained too, or such lists by embedding module."}
    )
    bias: Bias = field(default="none", metadata={"help": "Biases to train too: 'none', 'all' or 'lorta_only'."})
    rank_pattern: dict[str, int] | None = field(default=None, metadata={"help": "Not possible: leave it unset."})
    alpha_pattern: dict[str, float] | None = field(default=None, metadata={"help": "Not possible: leave it unset."})
    head_side: HeadSide = field(
        default="natural",
        metadata={
            "help": "The side of a projection that the heads divide: 'natural' is output for q, k, v and input for o "
            "(how attention reads them); 'input' or 'output' for all four (the released PEFT and lit-gpt code). "
            "In the feed-forward block they always divide its inner width."
        },
    )
    init: Init = field(
        default="rank_neutral",
        metadata={"help": "'reference': the released code; 'rank_neutral': the same at rank 4, alike at every rank."},
    )
    init_scale: float = field(
        default=0.0, metadata={"help": "Larger means smaller C factors, as in the released code, whose default is 0."}
    )
    dropout: float = field(default=0.0, metadata={"help": "Dropout probability on the input of adapted projections."})
    geometry: dict[str, Any] | None = field(
        default=None,
        metadata={"help": "What the factor rows stand for. Written when the adapter is attached; leave it unset."},
    )

    def __post_init__(self) -> None:
        """Validate, and bring lists into an order that does not depend on hashing."""
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if isinstance(self.target_modules, list | set | tuple):
            self.target_modules = sorted(self.target_modules)
        if isinstance(self.layers_to_transform, int):  # PEFT's LoraConfig takes one number too
            self.layers_to_transform = [self.layers_to_transform]
        if isinstance(self.r, bool) or not isinstance(self.r, int) or self.r < 1:
            raise ValueError(f"LortaConfig.r must be a whole number of at least 1, got {self.r!r}.")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"LortaConfig.alpha must be a positive number, got {self.alpha!r}.")
        if not (math.isfinite(self.init_scale) and self.init_scale >= 0):
            raise ValueError(f"LortaConfig.init_scale must be a number of at least 0, got {self.init_scale!r}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"LortaConfig.dropout must be at least 0 and below 1, got {self.dropout!r}.")
        for name, literal in CHOICES.items():
            value, choices = getattr(self, name), get_args(literal)
            if value not in choices:
                raise ValueError(f"LortaConfig.{name} must be one of {', '.join(choices)}; got {value!r}.")
        self._refuse_what_cannot_be()

    def _refuse_what_cannot_be(self) -> None:
        """Raise ValueError for settings of LoRA that LoRTA cannot have."""
        for name in ("rank_pattern", "alpha_pattern"):
            if getattr(self, name):
                raise ValueError(
                    f"LortaConfig.{name} must stay unset: all projections share the factors of one tensor, which has "
                    f"one rank and one alpha. Choose the projections with target_modules, or add a second adapter "
                    f"with another rank on other projections and activate both."
                )
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("LortaConfig.layers_pattern says where layers_to_transform counts: set both or neither.")
