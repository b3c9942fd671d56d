"""A regression head starts at the mean of the training labels, and a run says how much its answers vary."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from experiments.classification import start_at
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.runner.execute import execute
from lorta.training.context import DataSplits
from tests.contract.backbones import adapter, backbone

TRAIN, EVALUATION = {"labels": [1.0, 4.0, 5.0]}, {"labels": [0.0]}


def planned(tmp_path, *words: str):
    (spec,) = make_plan([*words, f"runtime.runs={tmp_path}", f"runtime.cache={tmp_path}/cache"], False, CONF).specs
    return spec


def test_a_regression_head_starts_at_the_mean_of_the_training_labels(tmp_path):
    task = planned(tmp_path, "task=glue/stsb").task
    base = backbone("roberta")
    assert task.start_head(base, DataSplits(TRAIN, EVALUATION)) is None
    assert base.model.classifier.out_proj.bias.tolist() == pytest.approx([10 / 3] * 2)
    copied = adapter("lora").attach(base, "SEQ_CLS").base_model.model.classifier.modules_to_save["default"]
    assert copied.out_proj.bias.tolist() == pytest.approx([10 / 3] * 2)


def test_a_head_of_classes_stays_as_drawn(tmp_path):
    base, before = backbone("roberta"), backbone("roberta").model.classifier.out_proj.bias
    planned(tmp_path, "task=glue/rte").task.start_head(base, DataSplits(TRAIN, EVALUATION))
    assert torch.equal(base.model.classifier.out_proj.bias, before)


def test_a_head_without_a_bias_stays_as_drawn_and_says_so():
    base, before = backbone("llama"), backbone("llama").model.score.weight
    assert start_at(base, 2.7).startswith("the head has no bias: it starts at 0, not at 2.7")
    assert torch.equal(base.model.score.weight, before)


def test_the_last_linear_layer_of_any_head_is_the_one():
    model = nn.ModuleDict({"classifier": nn.Linear(4, 1), "other": nn.Linear(4, 1)})
    geometry = SimpleNamespace(architecture=SimpleNamespace(head=("classifier",)))
    other = model["other"].bias.item()
    assert start_at(SimpleNamespace(model=model, geometry=geometry), 2.5) is None
    assert (model["classifier"].bias.item(), model["other"].bias.item()) == (2.5, other)


def test_a_record_has_the_spread_of_answers_and_a_constant_one_is_marked(tmp_path):
    words = ("task=glue/stsb", "adapter=head_only", "data.max_train_samples=64", "data.max_eval_samples=50")
    record = execute(planned(tmp_path, *words, "trainer.max_steps=1", "trainer.head_learning_rate=1e-9"))
    assert record.status == "success", record.failure
    assert record.spread.labels_std > 1
    assert 0 < record.spread.predictions_std < 0.05 * record.spread.labels_std
    assert record.collapsed


@pytest.mark.parametrize(
    ("words", "clipped"),
    [
        (("task=glue/rte",), 1.0),
        (("task=glue/rte", "trainer=smoke"), 1.0),
        (("task=instruct", "model=tiny_llama"), 1.0),
        (("task=dpo", "model=tiny_llama"), 1.0),
        (("task=gsm8k", "model=tiny_llama"), 1.0),
        (("experiment=lorta/glue_base", "model=tiny", "adapter=lora", "rank=8", "task=glue/rte"), 1.0),
        (("experiment=lorta/glue_base", "model=tiny", "adapter=lorta", "rank=8", "task=glue/rte"), None),
        (("experiment=lorta/glue_base", "model=tiny", "adapter=vera", "rank=8", "task=glue/rte"), None),
        (("experiment=lorta/glue_large", "model=tiny", "adapter=vera", "rank=8", "task=glue/rte"), None),
        (("experiment=lorta/glue_tensor", "model=tiny", "adapter=lotr", "rank=8", "task=glue/rte"), 1.0),
    ],
)
def test_gradients_are_clipped_at_1_but_where_a_papers_protocol_has_none(words, clipped):
    specs = make_plan([*words, "seed=0"], True, CONF).specs
    assert {spec.settings.trainer.max_grad_norm for spec in specs} == {clipped}
