"""The protocol of a method, and every method that is a PEFT tuner: one YAML, no code.

Built while a sweep is planned, without torch or PEFT; those are imported when a model is at hand.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from simpleeval import InvalidExpression, simple_eval

from lorta.geometry import ROLES, Geometry
from lorta.harness.build import build, resolve

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

    from lorta.harness.backbone import Backbone


class Adapter(Protocol):
    """One method of fine-tuning. Weights it adds start so that the model's output is unchanged, unless it says not."""

    name: str
    rank: int | None
    identity_at_start: bool

    def unsupported(self, geometry: Geometry) -> str | None:
        """Return why the method cannot attach to such a model, one sentence, or None."""
        ...

    def parameters(self, geometry: Geometry) -> int | None:
        """Return the closed-form count of adapter weights, head and norms excluded; None where there is no form."""
        ...

    def attach(self, backbone: "Backbone", task_type: str) -> "nn.Module":
        """Return the model to train: exactly the method's weights and the head require a gradient."""
        ...

    def callbacks(self) -> "list[TrainerCallback]":
        """Return what the method must do between training steps."""
        ...

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write what was trained, as safetensors."""
        ...

    def load(self, backbone: "Backbone", task_type: str, folder: Path) -> "nn.Module":
        """Return the trained model: a fresh backbone and what `save` wrote."""
        ...


@dataclass(frozen=True)
class PeftAdapter:
    """A PEFT tuner, PEFT's own or registered from outside.

    `projections` are roles of `lorta.geometry`; `config` is the node of a PeftConfig, built when a model is at hand.
    `count` is the closed form: `each` is summed over the adapted matrices, `once` is added once; names in it are the
    numbers of `config`, the fields of Geometry, and inputs, outputs, matrices. Or `call`: the dotted path of a function
    (geometry, config, projections) -> int that imports no torch; its ValueError says why the method cannot attach.
    """

    name: str
    config: Mapping[str, Any]
    projections: Sequence[str]
    count: Mapping[str, str]
    learning_rate: float  # a default that the trainer settings refer to
    head_learning_rate: float
    rank: int | None = None  # what tables show; None for a method without one
    feedforward: Sequence[str] = ()  # IA3: roles whose input, not output, is scaled
    prepare: str | None = None  # dotted path of a function(backbone, config) called before PEFT wraps the model
    finish: str | None = None  # dotted path of a function(model) called after PEFT wrapped the model, also on load
    callback: str | None = None  # dotted path of a function(config) -> TrainerCallback
    norms: bool = False  # also train all normalisation layers
    identity_at_start: bool = True

    def __post_init__(self) -> None:
        unknown = [role for role in (*self.projections, *self.feedforward) if role not in ROLES]
        if unknown:
            raise ValueError(f"adapter.projections: no role {', '.join(unknown)}; there are: {', '.join(ROLES)}")

    def unsupported(self, geometry: Geometry) -> str | None:
        """Return the sentence for a projection that the architecture lacks or that `call` refuses, or None."""
        try:
            roles = geometry.roles(tuple(self.projections))
            if "call" in self.count:
                resolve(self.count["call"])(geometry, self.config, roles)
        except ValueError as error:
            return f"{self.name} cannot attach: {error}"
        return None

    def parameters(self, geometry: Geometry) -> int | None:
        """Return the closed-form count; None where `count` is empty. Raises ValueError for a broken formula."""
        roles = geometry.roles(tuple(self.projections))
        if "call" in self.count:
            return int(resolve(self.count["call"])(geometry, self.config, roles))
        if not self.count:
            return None
        names = {key: value for key, value in self.config.items() if isinstance(value, int | float)}
        names |= {key: value for key, value in vars(geometry).items() if isinstance(value, int)}
        names["matrices"] = len(roles)
        shapes = geometry.module_shapes(roles)
        try:
            each = self.count.get("each", "0")
            total = sum(simple_eval(each, names=names | {"inputs": i, "outputs": o}) for i, o in shapes)
            return int(total + simple_eval(self.count.get("once", "0"), names=names))
        except (InvalidExpression, SyntaxError) as error:
            raise ValueError(f"conf/adapter/{self.name}.yaml, count: {error}") from error

    def peft_config(self, backbone: "Backbone", task_type: str) -> Any:
        """Return the PeftConfig with its targets for this model."""
        geometry = backbone.geometry
        saved = list(geometry.architecture.head) if task_type == "SEQ_CLS" else []
        saved += norm_paths(backbone) if self.norms else []
        targets: dict[str, Any] = {"task_type": task_type, "modules_to_save": saved or None}
        if self.projections:
            targets["target_modules"] = geometry.target_regex(tuple(self.projections))
        if self.feedforward:
            targets["feedforward_modules"] = geometry.target_regex(tuple(self.feedforward))
        return build(self.config, **targets)

    def attach(self, backbone: "Backbone", task_type: str) -> "nn.Module":
        """Return the PeftModel around the backbone."""
        import peft

        self._prepare(backbone)
        return self._finish(peft.get_peft_model(backbone.model, self.peft_config(backbone, task_type)))

    def callbacks(self) -> "list[TrainerCallback]":
        """Return the method's own callback, if the YAML names one."""
        return [resolve(self.callback)(self.config)] if self.callback else []

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write PEFT's own files: adapter_config.json and adapter_model.safetensors."""
        model.save_pretrained(str(folder), safe_serialization=True)  # pyright: ignore[reportCallIssue]

    def load(self, backbone: "Backbone", task_type: str, folder: Path) -> "nn.Module":
        """Return PeftModel.from_pretrained of the folder; importing the config's class registers external tuners."""
        import peft

        resolve(self.config["_target_"])
        self._prepare(backbone)
        return self._finish(peft.PeftModel.from_pretrained(backbone.model, str(folder)))

    def _prepare(self, backbone: "Backbone") -> None:
        if self.prepare:
            resolve(self.prepare)(backbone, self.config)

    def _finish(self, model: "nn.Module") -> "nn.Module":
        if self.finish:
            resolve(self.finish)(model)
        return model


def norm_paths(backbone: "Backbone") -> list[str]:
    """Return the full paths of all normalisation layers of a model, in its own order."""
    pattern = re.compile(backbone.geometry.architecture.norms)
    return [path for path, _ in backbone.model.named_modules() if pattern.fullmatch(path)]
