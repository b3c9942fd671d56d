"""Our tuners as PEFT's tests take them: a class of configurations and the arguments of one."""

import dataclasses
from functools import cache
from typing import Any

import torch
from peft import get_peft_model

from lorta.peft_extension.registry import ExternalTuner
from tests.contract.tuners import config, external
from tests.peft_suite.models import build

# of all models: what they do not have is passed over
TARGETS = ["q_proj", "k_proj", "v_proj", "query", "key", "value", "query_proj", "key_proj", "value_proj", "q", "k", "v"]
TARGETS += ["c_attn"]
OTHERS = {"geometry", "peft_type", "target_modules", "auto_mapping", "base_model_name_or_path", "task_type"}
OTHERS |= {"inference_mode", "modules_to_save", "peft_version", "revision"}  # that the model or PEFT decides


@cache
def config_class(name: str) -> Any:
    """Return a tuner's class of configurations, with `init_weights`, which PEFT's tests set: False is no identity."""
    base = type(config(name))
    made = dataclasses.make_dataclass(base.__name__, [("init_weights", bool, True)], bases=(base,))
    made.__module__, made.tuner_name = base.__module__, name  # pyright: ignore[reportAttributeAccessIssue]
    return made


def arguments(name: str) -> dict[str, Any]:
    """Return the values in which a tuner's YAML differs from the defaults of its class."""
    settings = config(name)
    known = [field.name for field in dataclasses.fields(settings) if field.name not in OTHERS]
    plain = {field.name: field.default for field in dataclasses.fields(settings)}
    return {key: getattr(settings, key) for key in known if getattr(settings, key) != plain[key]}


def cases(task_type: str) -> list[tuple[Any, dict[str, Any]]]:
    """Return (class, arguments) of every tuner for one kind of task."""
    common = {"task_type": task_type, "target_modules": TARGETS}
    return [(config_class(name), arguments(name) | common) for name in external()]


@cache
def refusal(name: str, model_id: str) -> str | None:
    """Return why a tuner does not attach to a model, or None."""
    model = build(model_id)
    try:
        get_peft_model(model, config_class(name)(**arguments(name), target_modules=TARGETS))
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def leave_the_start(tuner: ExternalTuner, adapter_name: str) -> None:
    """Give the weights of an adapter values that change the model's output, where its configuration asks for it."""
    if getattr(tuner.peft_config[adapter_name], "init_weights", True):
        return
    generator = torch.Generator().manual_seed(len(tuner.peft_config))
    for name, weight in tuner.named_parameters():
        own = f".{tuner.prefix}" in f".{name}" and f".{adapter_name}." in f"{name}."
        if own and weight.is_floating_point() and not weight.is_meta:
            noise = 0.1 * torch.randn(weight.shape, generator=generator)
            weight.data.add_(noise.to(weight.device, weight.dtype))
