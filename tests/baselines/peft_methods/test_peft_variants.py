"""What the YAML files of PEFT's tuners and LoRA variants add: losses, gradients, rates, whole numbers of entries."""

import json
from types import SimpleNamespace

import pytest
import torch
from peft import PveraConfig, VeraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.pvera.layer import PveraLayer
from peft.tuners.supertuning.layer import SupertuningLayer
from peft.tuners.vera.layer import VeraLayer
from short_training import train

from baselines.peft_methods.adamss import AdaptiveSubspaces, schedule_in_steps
from baselines.peft_methods.lora_fa import project
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


def test_pveras_divergence_is_that_of_its_inner_vectors_from_standard_normal_ones(adapter, backbone, tokens, randomise):
    model = adapter("pvera", 3, kl_weight=10.0).attach(backbone("roberta"), "SEQ_CLS")
    randomise(model)
    inputs = {}
    for layer in layers(model, PveraLayer):
        layer.register_forward_pre_hook(lambda module, args: inputs.update({module: args[0]}))
    model.train()
    torch.manual_seed(1)
    output = model(tokens, labels=LABELS)
    expected = 0.0
    for layer in layers(model, PveraLayer):
        inner = inputs[layer] @ layer.pvera_A["default"].T * layer.pvera_lambda_d["default"]
        mean, log_variance = inner.chunk(2, dim=-1)
        own = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        expected = expected + torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).mean()
    own = torch.nn.functional.cross_entropy(output.logits, LABELS)
    torch.testing.assert_close(output.loss, own + 10.0 / 2 * expected, rtol=1e-4, atol=1e-5)
    output.loss.backward()
    again = model(tokens, labels=LABELS).loss  # nothing of the first pass is left
    assert again < 2 * output.loss
    evaluated = model.eval()(tokens, labels=LABELS)
    torch.testing.assert_close(evaluated.loss, torch.nn.functional.cross_entropy(evaluated.logits, LABELS))


def test_pveras_file_has_pefts_own_settings(adapter, backbone, tmp_path):
    method = adapter("pvera", 3)
    folder = saved(method, model_of(method, backbone), tmp_path)
    assert "kl_weight" not in json.loads((folder / "adapter_config.json").read_text())
    again = method.load(backbone("roberta"), "SEQ_CLS", folder)
    assert type(again.peft_config["default"]) is PveraConfig


def test_trainable_tokens_trains_the_first_rows_of_the_embeddings_and_the_head(adapter, backbone, tokens, tmp_path):
    method = adapter("trainable_tokens", tokens=6)
    model = method.attach(backbone("roberta"), "SEQ_CLS")
    before = model.roberta.embeddings.word_embeddings.weight.detach().clone()
    train(method, model, tmp_path, max_steps=2)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert sum("tokens" in name for name in trained) == 1
    assert all("tokens" in name or "classifier" in name for name in trained)
    folder = saved(method, model.eval(), tmp_path)
    assert {"tokens", "modules_to_save"}.isdisjoint(json.loads((folder / "adapter_config.json").read_text()))
    again = method.load(backbone("roberta"), "SEQ_CLS", folder).eval()
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)
    again.merge_adapter()
    moved = (again.roberta.embeddings.word_embeddings.weight != before).any(dim=1)
    assert {3} <= set(moved.nonzero().flatten().tolist()) <= {3, 4, 5}  # 0 to 2 are in no row of the data


def test_the_adaptive_adamss_freezes_half_of_its_clusters_and_goes_on_so(adapter, backbone, tmp_path):
    method, counts = adapter("adamss_adaptive", 4), []
    model = method.attach(backbone("roberta"), "SEQ_CLS")

    def trained(model):
        return {name for name, weight in model.named_parameters() if "adamss_" in name and weight.requires_grad}

    everything = trained(model)
    trainer, counts = train(method, model, tmp_path, lambda model, _: len(trained(model)), max_steps=10)
    assert counts == sorted(counts, reverse=True)
    assert 0.3 < counts[-1] / len(everything) <= 0.5  # PEFT leaves one less than its target in each cut
    (callback,) = [each for each in trainer.callback_handler.callbacks if isinstance(each, AdaptiveSubspaces)]
    state = callback.state_dict(model)
    fresh = method.attach(backbone("roberta"), "SEQ_CLS")
    callback.load_state_dict(state, fresh)
    assert trained(fresh) == trained(model) < everything


def test_the_adaptive_adamss_freezes_nothing_where_all_scores_are_equal(adapter, backbone, tmp_path):
    """In the first step, whose learning rate is 0 where rates rise, PEFT froze every cluster for good."""
    method = adapter("adamss_adaptive", 4)
    model = method.attach(backbone("roberta"), "SEQ_CLS")
    (callback,) = method.callbacks()
    callback.on_train_begin(None, SimpleNamespace(max_steps=2), None, model=model)
    trained = {name for name, weight in model.named_parameters() if "adamss_" in name and weight.requires_grad}
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        weight.grad = torch.zeros_like(weight)
    callback.on_optimizer_step(None, SimpleNamespace(global_step=0), None, model=model)
    assert trained and trained == {
        name for name, w in model.named_parameters() if "adamss_" in name and w.requires_grad
    }


def test_adamsss_schedule_is_a_share_of_the_run():
    config = {"init_warmup": 50, "final_warmup": 1000, "mask_interval": 100}
    assert schedule_in_steps(config, 400) == {"init_warmup": 20, "final_warmup": 400, "mask_interval": 40}
    assert schedule_in_steps(config, 2) == {"init_warmup": 0, "final_warmup": 2, "mask_interval": 1}
    with pytest.raises(ValueError, match="at least 2 optimizer steps"):
        schedule_in_steps(config, 1)


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
