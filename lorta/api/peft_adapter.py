"""Every method that is a PEFT tuner: one YAML file, no code.

Built while a sweep is planned, without torch or PEFT; those are imported when a model is at hand.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simpleeval import InvalidExpression, simple_eval

from lorta.config.instantiate import build, resolve
from lorta.config.suggestions import did_you_mean
from lorta.geometry import ROLES, Geometry, ModelContext, largest_divisor

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

    from lorta.models.backbone import Backbone


MODEL_CARD = "README.md"
CARD = """---
library_name: peft
---

# {name}

An adapter that `lorta` has trained. `adapter_config.json` names its method and base model; the folder above has the
run's `record.json` with settings, data, scores and cost. `peft.PeftModel.from_pretrained(BASE, FOLDER)` loads it.
"""
FUNCTIONS = {  # of the expressions in conf/adapter
    "min": min,
    "max": max,
    "gcd": lambda sizes: math.gcd(*sizes),
    "divisor": largest_divisor,
    "ceil": math.ceil,
}
COUNT_KEYS = ("per_module", "shared", "call", "unless")
NORMS = "norms"  # as `config.target_modules`: all normalisation layers


@dataclass(frozen=True)
class PeftAdapter:
    """A PEFT tuner, PEFT's own or registered from outside.

    The arguments are the keys of a file in conf/adapter; docs/adapters.md explains each, and the names that expressions
    in `param_count`, `derived` and `unsupported_if` may use.

    Raises:
        ValueError: `projections` or `feedforward` names an unknown role, or `param_count` has an unknown key.

    Example:
        >>> adapter = PeftAdapter(
        ...     name="lora",
        ...     rank=8,
        ...     learning_rate=1e-3,
        ...     head_learning_rate=1e-3,
        ...     projections=["q", "v"],
        ...     config={"_target_": "peft.LoraConfig", "r": 8},
        ...     param_count={"per_module": "r * (inputs + outputs)"},
        ... )
        >>> roberta_base = {"model_type": "roberta", "hidden_size": 768, "num_hidden_layers": 12}
        >>> geometry = Geometry.from_config(roberta_base | {"num_attention_heads": 12, "intermediate_size": 3072})
        >>> adapter.parameters(geometry)
        294912
    """

    name: str
    config: Mapping[str, Any]
    projections: Sequence[str]
    param_count: Mapping[str, str]
    learning_rate: float  # a default that the trainer settings refer to
    head_learning_rate: float
    weight_decay: float = 0.0  # another such default, of the adapter's weights
    rank: int | None = None  # what tables show; None for a method without one
    feedforward: Sequence[str] = ()  # IA3: roles whose input, not output, is scaled
    prepare: str | None = None  # dotted path of a function(backbone, config) called before PEFT wraps the model
    finish: str | None = None  # dotted path of a function(model) called after PEFT wrapped the model, also on load
    before_save: str | None = None  # dotted path of a function(model) called before the adapter is written
    callback: str | None = None  # dotted path of a function(config) -> TrainerCallback
    count_changed: str | None = None  # dotted path of a function(model) -> base weights that differ from the backbone's
    rate_factors: Mapping[str, float] = field(default_factory=dict[str, float])
    derived: Mapping[str, str] = field(default_factory=dict[str, str])  # values of `config` that follow from the model
    unsupported_if: Mapping[str, str] = field(default_factory=dict[str, str])  # condition -> why it cannot attach
    budget_param: str | None = None  # the key that `budget=` is solved for; by default the rank, where there is one
    init_presets: Mapping[str, Any] = field(default_factory=dict[str, Any])  # by task.start: what other keys refer to
    norms: bool = False  # also train all normalisation layers
    identity_at_start: bool = True
    load_with: str | None = None  # what PEFT alone gets wrong with a saved adapter, and what a process has to call
    reversible: bool = True  # switched off, it is the backbone again
    own_process: bool = False  # its runs leave something behind in their process that moves the numbers of others

    def __post_init__(self) -> None:
        unknown = [role for role in (*self.projections, *self.feedforward) if role not in ROLES]
        if unknown:
            raise ValueError(f"adapter.projections: no role {', '.join(unknown)}; there are: {', '.join(ROLES)}")
        for key in self.param_count:
            if key not in COUNT_KEYS:
                raise ValueError(f"param_count: `{key}` is no key of it{did_you_mean(key, COUNT_KEYS)}")

    def unsupported(self, context: ModelContext) -> str | None:
        """Return the sentence for a projection that is missing, or that `call` or `unsupported_if` excludes."""
        geometry = context.geometry
        try:
            roles = geometry.roles(tuple(self.projections))
            if "call" in self.param_count:
                resolve(self.param_count["call"])(geometry, self.fitted(geometry), roles)
        except ValueError as error:
            return f"{self.name} cannot attach: {error}"
        names = self._names(geometry, self.fitted(geometry))
        names |= {
            "task_type": context.task_type,
            "quantization": context.quantization,
            "gradient_checkpointing": context.gradient_checkpointing,
            "dtype": context.dtype,
        }
        for condition, sentence in self.unsupported_if.items():
            if self._evaluate(condition, names):
                return f"{self.name} cannot attach to {geometry.model_type}: {sentence}"
        if (count := self.parameters(geometry)) is not None and count < 0:
            raise ValueError(f"its settings give {count:,} parameters: a size in adapter.config is negative")
        return (
            f"{self.name} has 0 parameters with these settings: a size in adapter.config is 0." if count == 0 else None
        )

    def fitted(self, geometry: Geometry) -> dict[str, Any]:
        """Compute the PEFT settings for a model.

        Args:
            geometry: shapes of the model.

        Returns:
            `config` with its `derived` values.

        Raises:
            ValueError: an expression cannot be evaluated.
        """
        names = self._names(geometry, self.config)
        return {**self.config, **{key: self._evaluate(formula, names) for key, formula in self.derived.items()}}

    def parameters(self, geometry: Geometry) -> int | None:
        """Compute the number of adapter parameters from `param_count`.

        Args:
            geometry: shapes of the model.

        Returns:
            The number, without the head; None if `param_count` is empty or does not hold for these settings.

        Raises:
            ValueError: an expression cannot be evaluated, or the model does not have the projections.
        """
        roles, config = geometry.roles(tuple(self.projections)), self.fitted(geometry)
        if "call" in self.param_count:
            return int(resolve(self.param_count["call"])(geometry, config, roles))
        if not self.param_count or config.get(self.param_count.get("unless", "")) is not None:
            return None
        names = self._names(geometry, config)
        each, shapes = self.param_count.get("per_module", "0"), geometry.module_shapes(roles)
        total = sum(self._number(each, names | {"inputs": i, "outputs": o}) for i, o in shapes)
        return int(total + self._number(self.param_count.get("shared", "0"), names))

    def other_parameters(self, geometry: Geometry) -> int | None:
        """Compute the number of weights that are trained besides the adapter's and the head.

        Args:
            geometry: shapes of the model.

        Returns:
            The weights of all normalisation layers if `norms` is set, else 0; None where the geometry does not tell.
        """
        return geometry.norm_weights if self.norms else 0

    def _names(self, geometry: Geometry, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an expression may name."""
        shapes = [geometry.shape(role) for role in geometry.roles(tuple(self.projections))]
        inputs, outputs = [i for i, _ in shapes], [o for _, o in shapes]
        names = {key: value for key, value in config.items() if isinstance(value, int | float)}
        names |= {key: value for key, value in vars(geometry).items() if isinstance(value, int | str)}
        known = vars(geometry.architecture).items()
        names |= {key: value is not False for key, value in known if isinstance(value, bool | None)}
        names["shared_modules"] = any(len(geometry.architecture.sharing(role)) > 1 for role in self.projections)
        return names | {"matrices": len(shapes), "inputs": inputs, "outputs": outputs, "sizes": inputs + outputs}

    def _evaluate(self, expression: str, names: Mapping[str, Any]) -> Any:
        try:
            return simple_eval(expression, names=dict(names), functions=FUNCTIONS)
        except (InvalidExpression, SyntaxError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
            raise ValueError(f"'{expression}': {error}") from error

    def _number(self, expression: str, names: Mapping[str, Any]) -> float:
        value = self._evaluate(expression, names)
        if not isinstance(value, int | float):
            raise ValueError(f"param_count: '{expression}' must give a number, and gives {str(value)[:40]}")
        return value

    def peft_config(self, backbone: "Backbone", task_type: str) -> Any:
        """Build PEFT's configuration for a model.

        Args:
            backbone: the model with its geometry.
            task_type: PEFT's name, for example SEQ_CLS.

        Returns:
            An object of the class that `config` names, with `target_modules` and `modules_to_save`.
        """
        geometry = backbone.geometry
        saved = list(geometry.architecture.head) if task_type in ("SEQ_CLS", "FEATURE_EXTRACTION") else []
        saved += norm_paths(backbone) if self.norms else []
        targets: dict[str, Any] = {"task_type": task_type, "modules_to_save": saved or None}
        if self.projections:
            targets["target_modules"] = geometry.target_regex(tuple(self.projections))
        if self.feedforward:
            targets["feedforward_modules"] = geometry.target_regex(tuple(self.feedforward))
        settings = self.fitted(geometry)
        if settings.get("target_modules") == NORMS:
            settings["target_modules"] = geometry.architecture.norms
        return build(settings, **targets)

    def attach(self, backbone: "Backbone", task_type: str) -> "nn.Module":
        """Return the PeftModel around the backbone."""
        import peft

        from lorta.peft_extension.trained_in_float32 import hold_copies_in_float32

        self._prepare(backbone)
        config = self.peft_config(backbone, task_type)
        try:
            wrapped = peft.get_peft_model(backbone.model, config)
        except (TypeError, AttributeError, LookupError) as error:  # of a value that PEFT computes with unchecked
            raise ValueError(f"{self.config['_target_']} cannot be attached with its settings: {error}") from error
        model = self._finish(wrapped)
        hold_copies_in_float32(model, backbone.geometry.architecture.head)
        return model

    def callbacks(self) -> "list[TrainerCallback]":
        """Return the method's own callback, if the YAML names one."""
        return [resolve(self.callback)(self.config)] if self.callback else []

    def changed_weights(self, model: "nn.Module") -> int | None:
        """Return how many base weights differ from the backbone's, None for a method that adds weights instead."""
        return resolve(self.count_changed)(model) if self.count_changed else None

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write PEFT's own files: adapter_config.json and adapter_model.safetensors; and how to load them."""
        if self.before_save:
            resolve(self.before_save)(model)
        folder.mkdir(parents=True, exist_ok=True)
        # PEFT goes on with a card that is there; its own is a form of forty questions that nobody has answered
        (folder / MODEL_CARD).write_text(CARD.format(name=self.name), encoding="utf-8")
        # "auto", PEFT's default, asks the hub for the base's vocabulary, of its branch main; no task changes it here
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)  # pyright: ignore
        if needs := self.loading_needs():
            with (folder / MODEL_CARD).open("a", encoding="utf-8") as card:
                card.write("\n## Loading\n" + "".join(f"- {need}\n" for need in needs))

    def loading_needs(self) -> list[str]:
        """Return what a process needs beside PEFT to load a saved adapter as it was trained, a sentence each."""
        target = str(self.config["_target_"])
        own = [] if target.startswith("peft.") else [f"`import {target.rpartition('.')[0]}` registers it with PEFT."]
        needs = [*own, *([self.load_with] if self.load_with else [])]
        whole = "`lorta.runner.reload.reload_run(Path(RUN_FOLDER), CONF).model` does all of it."
        return [*needs, whole] if needs else []

    def load(self, backbone: "Backbone", task_type: str, folder: Path) -> "nn.Module":
        """Return PeftModel.from_pretrained of the folder; importing the config's class registers external tuners."""
        import peft

        from lorta.peft_extension.trained_in_float32 import hold_copies_in_float32, read_copies

        resolve(self.config["_target_"])
        self._prepare(backbone)
        model = self._finish(peft.PeftModel.from_pretrained(backbone.model, str(folder)))
        read_copies(model, hold_copies_in_float32(model, backbone.geometry.architecture.head), folder)
        return model

    def _prepare(self, backbone: "Backbone") -> None:
        if self.prepare:
            resolve(self.prepare)(backbone, self.fitted(backbone.geometry))

    def _finish(self, model: "nn.Module") -> "nn.Module":
        if self.finish:
            resolve(self.finish)(model)
        return model


def norm_paths(backbone: "Backbone") -> list[str]:
    """Find the normalisation layers of a model.

    Args:
        backbone: the model with its geometry.

    Returns:
        Full module paths, in the order of the model.

    Example:
        >>> from transformers import RobertaConfig, RobertaForSequenceClassification
        >>> from lorta.models.backbone import Backbone
        >>> shape = RobertaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64)
        >>> model = RobertaForSequenceClassification(shape)
        >>> len(norm_paths(Backbone(model, None, Geometry.from_config(shape.to_dict()))))
        3
    """
    pattern = re.compile(backbone.geometry.architecture.norms)
    return [path for path, _ in backbone.model.named_modules() if pattern.fullmatch(path)]
