"""What the YAML files of PEFT's tuners and LoRA variants add: losses, gradients, rates, whole numbers of entries."""

import json
from types import SimpleNamespace

import pytest
import torch
from peft import VeraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.pvera.layer import PveraLayer
from peft.tuners.supertuning.layer import SupertuningLayer
from peft.tuners.vera.layer import VeraLayer
from short_training import train

from baselines.lora_fa import project
from lorta.training.trainer import parameter_groups

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LABELS = torch.tensor([0, 1, 0])


def layers(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(("name", "loss"), [("kasa", "_get_kasa_loss"), ("monteclora", "_get_monteclora_loss")])
def test_the_loss_that_peft_leaves_to_the_training_loop_is_in_the_models_own(
    adapter, backbone, tokens, randomise, name, loss
):
    model = adapter(name, 3).attach(backbone("roberta"), "SEQ_CLS")
    randomise(model)
    model.train()
    torch.manual_seed(1)
    with_extra = model(tokens, labels=LABELS)
    extra = getattr(model.base_model, loss)()
    assert abs(extra.item()) > 1e-6
    own = torch.nn.functional.cross_entropy(with_extra.logits, LABELS)
    torch.testing.assert_close(with_extra.loss, own + extra, rtol=1e-5, atol=1e-7)
    model.eval()
    evaluated = model(tokens, labels=LABELS)
    torch.testing.assert_close(evaluated.loss, torch.nn.functional.cross_entropy(evaluated.logits, LABELS))


def test_lora_fa_projects_the_gradient_of_the_weight_onto_what_a_reads():
    torch.manual_seed(0)
    a, b, full = torch.randn(3, 7), torch.randn(5, 3, requires_grad=True), torch.randn(5, 7)
    b.grad = 0.5 * full @ a.T  # of the update 0.5 B A
    project(a, b, 0.5)
    torch.testing.assert_close(0.5 * b.grad @ a, full @ torch.linalg.pinv(a) @ a)  # the nearest update there is


def test_lora_fa_trains_b_alone_with_that_gradient(adapter, backbone, tmp_path):
    method, plain = adapter("lora_fa", 3), adapter("lora", 3)
    ends = []
    for each in (method, plain):
        torch.manual_seed(5)
        model = each.attach(backbone("roberta"), "SEQ_CLS")
        before = [layer.lora_A["default"].weight.clone() for layer in layers(model, LoraLayer)]
        train(each, model, tmp_path, max_steps=4)
        found = layers(model, LoraLayer)
        if each is method:
            assert all(torch.equal(x.lora_A["default"].weight, y) for x, y in zip(found, before, strict=True))
        ends.append(found[0].lora_B["default"].weight.detach())
    assert not torch.equal(*ends)
    again = method.load(backbone("roberta"), "SEQ_CLS", saved(method, model_of(method, backbone), tmp_path))
    assert not [path for path, weight in again.named_parameters() if "lora_A" in path and weight.requires_grad]


def model_of(method, backbone):
    return method.attach(backbone("roberta"), "SEQ_CLS")


def saved(method, model, folder):
    method.save(model, folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize(
    ("name", "entries", "expected"),
    [
        ("supertuning", 1, 24),
        ("supertuning", 42, 1_008),
        ("supertuning", 208, 4_992),
        ("supertuning", 833, 19_992),
        ("frod", 0, 18_432),
        ("frod", 1, 18_456),
        ("frod", 65, 19_992),
    ],
)
def test_a_sparse_tuner_has_a_whole_number_of_entries_a_matrix(adapter, backbone, name, entries, expected):
    big = adapter(name, entries=entries)
    assert big.parameters(backbone("roberta", device="meta", **BASE).geometry) == expected


@pytest.mark.parametrize(("name", "entries"), [("supertuning", 1), ("supertuning", 37), ("frod", 0), ("frod", 37)])
def test_the_built_sparse_tuner_has_them_and_saves_pefts_configuration(adapter, backbone, tmp_path, name, entries):
    base, method = backbone("roberta"), adapter(name, entries=entries)
    model = method.attach(base, "SEQ_CLS")
    trained = {path: weight for path, weight in model.named_parameters() if weight.requires_grad}
    counted = sum(weight.numel() for path, weight in trained.items() if "classifier" not in path)
    assert counted == method.parameters(base.geometry) == 4 * (entries + (24 if name == "frod" else 0))
    assert "entries" not in json.loads((saved(method, model, tmp_path) / "adapter_config.json").read_text())


def test_super_tuning_trains_the_largest_entries(adapter, backbone):
    model = adapter("supertuning", entries=9).attach(backbone("roberta"), "SEQ_CLS")
    for layer in layers(model, SupertuningLayer):
        weight = layer.get_base_layer().weight.abs().flatten()
        chosen = layer.supertuning_indices["default"].long()
        assert weight[chosen].min() >= weight.sort(descending=True).values[8]


def test_pvera_is_vera_where_it_does_not_sample(adapter, backbone, tokens):
    """Its A and d have a second half, for the logarithm of the variance; evaluation takes the first."""
    model = adapter("pvera", 3).attach(backbone("roberta"), "SEQ_CLS").eval()
    base = backbone("roberta")
    plain = get_peft_model(base.model, VeraConfig(r=3, target_modules=base.geometry.target_regex(["q", "v"]))).eval()
    for mine, other in zip(layers(model, PveraLayer), layers(plain, VeraLayer), strict=True):
        mine.pvera_lambda_b["default"].data.normal_()
        other.vera_lambda_b["default"].data = mine.pvera_lambda_b["default"].data.clone()
        other.vera_lambda_d["default"].data = mine.pvera_lambda_d["default"].data[:3].clone()
        other.vera_A["default"], other.vera_B["default"] = mine.pvera_A["default"][:3], mine.pvera_B["default"]
    torch.testing.assert_close(model(tokens).logits, plain(tokens).logits)
    model.train()
    assert not torch.equal(model(tokens).logits, model(tokens).logits)


def test_lora_plus_has_a_faster_b(adapter, backbone):
    method, base = adapter("lora_plus", 3), backbone("roberta")
    model = method.attach(base, "SEQ_CLS")
    rates = SimpleNamespace(learning_rate=1e-2, head_learning_rate=1e-3, weight_decay=0.0, head_weight_decay=0.0)
    groups = parameter_groups(model, base.geometry.architecture, rates, method.rate_factors)
    rate_of = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    assert {rate_of[id(weight)] for name, weight in model.named_parameters() if "lora_B" in name} == {0.16}
