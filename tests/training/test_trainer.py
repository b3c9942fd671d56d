"""The common trainer: two rates, one data order, honest counts, an early stop on NaN."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding

from experiments.classification import train_classifier
from lorta.config.settings import TrainerSettings
from lorta.training.callbacks import CountingCollator, TrainingDiverged, Watch
from lorta.training.context import DataSplits, TrainingContext
from lorta.training.metering import Stopwatch, is_head, quantile
from lorta.training.row_order import GroupedRows, RandomRows
from lorta.training.trainer import OwnDataOrder, parameter_groups
from tests.contract.backbones import adapter, backbone


class Padding:
    """A tokenizer that only pads."""

    padding_side = "right"
    pad_token_id = 1
    model_input_names = ("input_ids", "attention_mask")

    def pad(self, features, **options):
        longest = max(len(feature["input_ids"]) for feature in features)
        rows = [feature["input_ids"] + [1] * (longest - len(feature["input_ids"])) for feature in features]
        mask = [[1] * len(feature["input_ids"]) + [0] * (longest - len(feature["input_ids"])) for feature in features]
        labels = torch.tensor([feature["labels"] for feature in features])
        return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask), "labels": labels}


def settings(**changes) -> TrainerSettings:
    values = {
        "learning_rate": 1e-2,
        "head_learning_rate": 1e-3,
        "weight_decay": 0.0,
        "head_weight_decay": 0.1,
        "num_train_epochs": 2.0,
        "max_steps": -1,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.1,
        "max_grad_norm": None,
        "precision": "fp32",
        "group_by_length": True,
        "shuffle_groups": True,
        "selection": "last",
        "cpu_threads": 1,
    }
    return TrainerSettings(**(values | changes))


@pytest.fixture
def rows() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 60, (4 + index % 5,), generator=generator).tolist() for index in range(24)]
    return Dataset.from_dict(
        {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "labels": [i % 2 for i in range(24)]}
    )


def train(rows, folder, name="lora", score=lambda: 0.0, **changes):
    base = backbone("roberta")
    model = adapter(name).attach(base, "SEQ_CLS")
    base = replace(base, tokenizer=Padding())
    context = TrainingContext(base, DataSplits(rows, rows), settings(**changes), 0, folder)
    outcome = train_classifier(model, context, rows, score)
    return model, outcome


def test_head_and_adapter_have_their_own_rate_and_decay():
    base = backbone("roberta")
    architecture = base.geometry.architecture
    model = adapter("lora").attach(base, "SEQ_CLS")
    method, head = parameter_groups(model, architecture, settings())
    assert (method["lr"], method["weight_decay"], head["lr"], head["weight_decay"]) == (1e-2, 0.0, 1e-3, 0.1)
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert all(is_head(names[id(weight)], architecture) for weight in head["params"])
    assert all("lora_" in names[id(weight)] for weight in method["params"])


def test_a_part_of_a_name_can_have_a_rate_of_its_own():
    base = backbone("roberta")
    method = replace(adapter("lora"), rate_factors={"lora_B": 16.0})  # LoRA+
    model = method.attach(base, "SEQ_CLS")
    groups = parameter_groups(model, base.geometry.architecture, settings(), method.rate_factors)
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert [group["lr"] for group in groups] == [1e-2, 16e-2, 1e-3]
    assert all("lora_A" in names[id(weight)] for weight in groups[0]["params"])
    assert all("lora_B" in names[id(weight)] for weight in groups[1]["params"])
    assert sum(len(group["params"]) for group in groups) == sum(w.requires_grad for w in model.parameters())


def test_a_rate_for_no_weight_is_refused():
    base = backbone("roberta")
    model = adapter("lora").attach(base, "SEQ_CLS")
    with pytest.raises(ValueError, match="rate_factors: no trained weight has lora_C in its name"):
        parameter_groups(model, base.geometry.architecture, settings(), {"lora_C": 16.0})


def test_an_adapter_with_weights_needs_a_rate():
    base = backbone("roberta")
    model = adapter("lora").attach(base, "SEQ_CLS")
    with pytest.raises(ValueError, match="set a learning rate"):
        parameter_groups(model, base.geometry.architecture, settings(learning_rate=None))


def test_the_data_order_does_not_depend_on_the_adapter(rows, tmp_path, monkeypatch):
    orders = []
    original = OwnDataOrder._get_train_sampler

    def spy(self, *args):
        sampler = original(self, *args)
        orders.append(list(original(self, *args)))
        return sampler

    monkeypatch.setattr(OwnDataOrder, "_get_train_sampler", spy)
    for name in ("lora", "head_only"):
        train(rows, tmp_path / name, name, num_train_epochs=1.0)
    assert orders[0] == orders[-1]
    assert sorted(orders[0]) == list(range(24))


@pytest.mark.parametrize(
    "changes", [{}, {"shuffle_groups": False}, {"group_by_length": False, "shuffle_groups": False}]
)
def test_rows_come_in_the_order_that_the_settings_ask_for(changes, rows, tmp_path, monkeypatch):
    seen = []
    original = OwnDataOrder.get_train_dataloader

    def spy(self):
        seen.append(self._get_train_sampler())
        return original(self)

    monkeypatch.setattr(OwnDataOrder, "get_train_dataloader", spy)
    train(rows, tmp_path, "head_only", num_train_epochs=1.0, **changes)
    if "group_by_length" in changes:
        assert isinstance(seen[0], RandomRows)
    else:
        assert isinstance(seen[0], GroupedRows)
        assert seen[0].shuffle_groups is changes.get("shuffle_groups", True)


def test_groups_cannot_be_shuffled_where_there_are_none():
    with pytest.raises(ValueError, match=r"set trainer\.group_by_length=true"):
        settings(group_by_length=False)


def test_tokens_and_padding_are_counted(rows, tmp_path):
    _, outcome = train(rows, tmp_path, num_train_epochs=1.0)
    assert outcome.samples == 24
    assert outcome.tokens == sum(len(row) for row in rows["input_ids"])
    assert 0.0 <= outcome.padded_fraction < 0.5
    assert outcome.steps == 6
    assert outcome.loss_final is not None
    assert outcome.grad_norm_max > 0.0


def test_the_best_epoch_comes_back(rows, tmp_path):
    scores = iter([0.5, 0.9, 0.1])
    model, outcome = train(rows, tmp_path / "best", score=lambda: next(scores), selection="best", num_train_epochs=3.0)
    kept = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    seen = []

    def remember() -> float:
        seen.append({name: weight.detach().clone() for name, weight in watched.named_parameters()})
        return float(len(seen) == 2)

    base = backbone("roberta")
    watched = adapter("lora").attach(base, "SEQ_CLS")
    base, chosen = replace(base, tokenizer=Padding()), settings(selection="best", num_train_epochs=3.0)
    context = TrainingContext(base, DataSplits(rows, rows), chosen, 0, tmp_path / "seen")
    train_classifier(watched, context, rows, remember)
    assert outcome.best_epoch == 2.0
    assert all(torch.equal(weight, seen[1][name]) for name, weight in kept.items())
    assert not all(torch.equal(weight, seen[2][name]) for name, weight in kept.items())


def test_a_loss_that_is_no_number_stops_training(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"at step 7: lower trainer\.learning_rate"):
        Watch(tmp_path, CountingCollator(dict)).on_log(
            None, SimpleNamespace(global_step=7), None, logs={"loss": float("nan")}
        )


def test_clipping_off_changes_no_gradient_and_on_does(rows, tmp_path):
    losses = [train(rows, tmp_path / str(clip), max_grad_norm=clip)[1].loss_final for clip in (None, 1e6, 1e-4)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_the_collator_pads_to_the_longest_row_of_the_batch():
    collator = CountingCollator(DataCollatorWithPadding(Padding()))
    batch = collator([{"input_ids": [5, 6], "labels": 0}, {"input_ids": [5, 6, 7, 8], "labels": 1}])
    assert batch["input_ids"].shape == (2, 4)
    assert (collator.rows, collator.tokens, collator.positions) == (2, 6, 8)


def test_a_stopwatch_adds_up_phases():
    watch = Stopwatch()
    for _ in range(2):
        with watch.phase("data"):
            pass
    assert watch.current == "data"
    assert 0.0 <= watch.seconds["data"] <= watch.wall_s


def test_quantiles_of_few_values():
    assert quantile([], 0.5) is None
    assert quantile([2.0], 0.9) == 2.0
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
