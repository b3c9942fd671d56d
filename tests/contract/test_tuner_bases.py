"""What a base model may have been through before a tuner meets it, and what a tuner leaves of it when it fails."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tests.contract.backbones import ADAPTERS, batch, logits
from tests.contract.tuners import attach, base, base_logits, config, external, fill, same

CHOSEN = "target_modules is not set, so {} takes .*gate.*take gate out of the projections.*set target_modules"


@pytest.mark.parametrize("name", external())
def test_a_second_model_on_a_used_base_trains_its_own_weights(name):
    used = base(name)
    attach(name, on=used)
    model = attach(name, seed=2, on=used)
    model.train()(input_ids=batch()["input_ids"]).logits.sum().backward()
    silent = [path for path, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert silent == []
    assert same(logits(model), logits(attach(name, seed=2)))


@pytest.mark.parametrize("name", external())
def test_an_adapter_is_loaded_onto_a_used_base(name, tmp_path):
    model = attach(name, seed=3)
    model.save_pretrained(tmp_path)
    used = base(name)
    attach(name, on=used)
    assert same(logits(PeftModel.from_pretrained(used, tmp_path)), logits(model))


@pytest.mark.parametrize("name", external())
def test_an_adapter_beside_the_one_of_a_used_base_leaves_that_one_alone(name):
    used = base(name)
    first = attach(name, on=used, adapter_name="first")
    expected = logits(first)
    first.requires_grad_(False)  # PEFT lets it go on training, and `attach` fills what trains
    model = attach(name, seed=2, on=used, adapter_name="second")
    model.set_adapter("second")
    assert same(logits(model), logits(attach(name, seed=2)))
    model.set_adapter("first")
    assert same(logits(model), expected)


def test_a_replaced_adapter_is_gone_from_layers_that_the_new_one_leaves_alone():
    used, narrow = base("lorta"), [config("lorta"), config("lorta")]
    attach("lorta", on=used)
    for settings in narrow:
        settings.target_modules = ["q_proj"]
    again = attach("lorta", seed=2, on=used, settings=narrow[0])
    assert same(logits(again), logits(attach("lorta", seed=2, settings=narrow[1])))


def test_lorta_acts_beside_a_lora_that_the_base_carries():
    used = base("lorta")
    fill(get_peft_model(used, LoraConfig(target_modules=["q_proj"]), adapter_name="lora"), seed=1)
    before = logits(used)
    model = get_peft_model(used, config("lorta"))
    assert same(logits(model), before)
    assert not same(logits(fill(model, seed=2)), before)


@pytest.mark.parametrize("name", external())
def test_all_linear_layers_are_adapted_or_a_sentence_says_why_not(name):
    asked, used = config(name), base(name)
    asked.target_modules = "all-linear"
    try:
        model = attach(name, on=used, settings=asked)
    except (ValueError, TypeError) as error:
        assert len(str(error).split()) > 4
        assert "all-linear" not in str(error)
        assert same(logits(used), base_logits(name))
        assert same(logits(attach(name, seed=2, on=used)), logits(attach(name, seed=2)))
    else:
        down = [path for path in model.targeted_module_names if path.endswith("down_proj")]
        assert len(down) == (2 if "llama" in type(base(name)).__name__.lower() else 0)
        assert not same(logits(model), base_logits(name))


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("name", external())
def test_a_tuner_that_fails_half_way_leaves_the_base_as_it_was(name, carried, monkeypatch):
    used = base(name)
    if carried:
        attach(name, on=used, adapter_name="first")
    before, modules = logits(used), {path: type(module) for path, module in used.named_modules()}
    tuner = type(attach(name).base_model)
    create, calls = tuner._create_and_replace, []

    def break_at_the_third(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise ValueError("the third target does not fit")
        create(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(tuner, "_create_and_replace", break_at_the_third)
        with pytest.raises(ValueError, match="the third target"):
            get_peft_model(used, config(name))
    assert {path: type(module) for path, module in used.named_modules()} == modules
    assert torch.equal(logits(used), before)
    if not carried:
        assert same(logits(attach(name, seed=2, on=used)), logits(attach(name, seed=2)))


@pytest.mark.parametrize(("name", "title"), [("fact_tt", "FacT"), ("fact_tk", "FacT"), ("cara", "CaRA")])
def test_projections_that_nobody_chose_are_named_as_the_methods_own(name, title):
    assert name in ADAPTERS
    settings, model = config(name), base(name)
    settings.target_modules = None
    for layer in model.model.layers:
        layer.mlp.gate_proj = torch.nn.Linear(32, 48)
    model.config.intermediate_size = 48
    with pytest.raises(ValueError, match=CHOSEN.format(title)):
        get_peft_model(model, settings)
