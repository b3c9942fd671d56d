"""A plugin of pytest that runs PEFT's own test files over the tuners of this project.

PEFT's files hold lists of configurations and of model names, which their parametrisation reads when tests are
collected. Here the lists are replaced as soon as a file is imported; what is left over, tests of one method of PEFT's,
is not run.
"""

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import tests.conftest  # noqa: F401  clears the environment before a library reads it
from lorta.peft_extension.registry import ExternalTuner
from tests.peft_suite.models import LISTS
from tests.peft_suite.not_applicable import reason
from tests.peft_suite.tuners import cases, leave_the_start, refusal

TASK_TYPES = {
    "test_decoder_models": "CAUSAL_LM",
    "test_encoder_decoder_models": "SEQ_2_SEQ_LM",
    "test_seq_classifier": "SEQ_CLS",
    "test_feature_extraction_models": "FEATURE_EXTRACTION",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a part of the tests be run."""
    parser.addoption("--part", type=int, default=1, help="of so many pairs of a test and a tuner, take one")


def pytest_configure(config: pytest.Config) -> None:
    """Stand in for diffusers, whose pipelines no test here uses, and let adapters leave their start."""
    if "diffusers" not in sys.modules:
        stub: Any = ModuleType("diffusers")
        stub.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})
        sys.modules["diffusers"] = stub
    inject = ExternalTuner.inject_adapter

    def inject_and_leave(self: ExternalTuner, model: Any, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        inject(self, model, adapter_name, *args, **kwargs)
        leave_the_start(self, adapter_name)

    ExternalTuner.inject_adapter = inject_and_leave


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makemodule(module_path: Any, parent: Any) -> Iterator[None]:
    """Replace the lists of a file that is about to be collected."""
    collector: Any = yield
    if module_path.stem not in TASK_TYPES:
        return collector
    module = collector.obj
    for name, models in LISTS.items():
        if hasattr(module, name):
            getattr(module, name)[:] = models
    if hasattr(module, "ALL_CONFIGS"):
        module.ALL_CONFIGS[:] = cases(TASK_TYPES[module_path.stem])
    return collector


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """Keep the tests of our tuners, a part of them if asked; mark what does not apply."""
    part: Any = config.getoption("--part")
    ours = [item for item in items if hasattr(item, "callspec") and _tuner(item) and "model_id" in item.callspec.params]
    kept = ours if part == 1 else sample(ours, part)
    for item in kept:
        name = str(_tuner(item))
        if sentence := refusal(name, item.callspec.params["model_id"]):
            item.add_marker(pytest.mark.skip(reason=f"{name} does not attach: {sentence}"))
        elif sentence := reason(item.originalname, name):
            item.add_marker(pytest.mark.xfail(reason=sentence, strict=True))
    chosen = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = kept


def sample(items: list[Any], part: int) -> list[Any]:
    """Return one test for one in `part` pairs of a test function and a tuner, always the same.

    Neighbours of a function and of a tuner get other partners, so that all functions and all tuners have their share;
    the models take turns.
    """
    pairs: dict[tuple[str, str], list[Any]] = {}
    for item in items:
        pairs.setdefault((f"{item.path.stem}::{item.originalname}", str(_tuner(item))), []).append(item)
    functions, tuners = (sorted(set(names)) for names in zip(*pairs, strict=True))
    kept = []
    for (function, tuner), models in pairs.items():
        place = functions.index(function) + tuners.index(tuner)
        if place % part == 0:
            kept.append(models[place // part % len(models)])
    return kept


def _tuner(item: Any) -> str | None:
    return getattr(item.callspec.params.get("config_cls"), "tuner_name", None)
