"""Any adapter as a LoRA by singular values: exact at low rank, else with the true residual, or a sentence why not."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from lorta.cli.main import main
from lorta.tuner.singular_export import RESIDUALS, Truncation, export_singular
from tests.contract.backbones import adapter, backbone, logits, task_type

LOW_RANK = {  # adapter -> rank of its update at rank 4; a method that splits the weight itself has twice its own
    **{"lora": 4, "lotr": 4, "fact_tt": 4, "fact_tk": 4, "cara": 4, "metatt_4d": 4, "metatt_5d": 4, "tenslora": 4},
    **{"lora_xs": 4, "vera": 4, "lorta": 4, "melora": 8, "pissa": 8, "corda": 4, "ether": 1},
}
OF_ANY_RANK = ["oft", "ia3", "dora", "glora", "sara", "kasa"]  # products, biases, empty tensors, a base that changes
NO_UPDATE = {
    "prompt_tuning": "PROMPT_TUNING has no linear update that a LoRA could hold: it gives the model something to",
    "prefix_tuning": "PREFIX_TUNING has no linear update that a LoRA could hold: it gives the model something to",
    "ln_tuning": "LN_TUNING has no linear update that a LoRA could hold: 'roberta.* is a LayerNorm, no linear layer",
    "loretta_rep": "LORETTA_REP has no linear .* does not fit a fresh base model .*as LoRETTA does with an encoder",
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders with the weights of tiny models."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("roberta", "llama_lm")}
    for name, folder in folders.items():
        backbone(name).model.save_pretrained(folder)
    return folders


def moved(model):
    """Give an adapter weights that are far from its start."""
    generator = torch.Generator().manual_seed(3)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.add_(0.1 * torch.randn(weight.shape, generator=generator).to(weight.dtype))
    return model


def save(name, folder, architecture="roberta"):
    """Save an adapter; return its model."""
    method = adapter(name)
    model = moved(method.attach(backbone(architecture), task_type(architecture)))
    method.save(model, folder)
    return model


def difference(model, folder, architecture="roberta"):
    """How far the logits of the exported LoRA, read by plain PEFT, are from those of a model."""
    exported = PeftModel.from_pretrained(backbone(architecture).model, str(folder))
    assert exported.peft_config["default"].peft_type == "LORA"
    return (logits(exported) - logits(model)).abs().max().item()


@pytest.mark.parametrize("name", [*LOW_RANK, *OF_ANY_RANK])
def test_plain_peft_gives_the_logits_of_the_method(tmp_path, bases, name):
    model = save(name, tmp_path / "saved")
    exported = export_singular(tmp_path / "saved", tmp_path / "lora", base=bases["roberta"])
    # The rounding to float32 leaves 2**-24 or less of each entry, what is dropped at most 1e-6; the logits, of size 1,
    # then move by less than 1e-5. A wrong scaling, a forgotten bias or a transposed matrix moves them by 0.1.
    assert exported.residual < 1.1e-6
    assert all(fit.norm > 0.01 for fit in exported.modules.values())
    assert difference(model, tmp_path / "lora") < 1e-4
    if name in LOW_RANK:
        assert {fit.rank for fit in exported.modules.values()} == {LOW_RANK[name]}


@pytest.mark.parametrize("name", ["loretta_rep", "cara"])
def test_biases_that_the_base_model_lacks_are_written(tmp_path, bases, name):
    model = save(name, tmp_path / "saved", "llama_lm")
    exported = export_singular(tmp_path / "saved", tmp_path / "lora", base=bases["llama_lm"])
    assert exported.config.lora_bias == (name == "cara")
    assert difference(model, tmp_path / "lora", "llama_lm") < 1e-4


@pytest.mark.parametrize("words", [["--rank", "5"], ["--residual", "0.3"]])
def test_residuals_are_those_of_the_dense_updates_and_are_printed_and_stored(tmp_path, bases, capsys, words):
    model = save("loha", tmp_path / "saved")
    place = ["--base", str(bases["roberta"]), "--to", str(tmp_path / "lora")]
    assert main(["export", str(tmp_path / "saved"), *place, *words]) == 0
    weights = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    stored = json.loads((tmp_path / "lora" / RESIDUALS).read_text())
    printed = capsys.readouterr().out
    squares = []
    for path, layer in model.base_model.model.named_modules():
        if path not in stored["modules"]:
            continue
        update = layer.get_delta_weight("default").detach().double()
        down, up = (weights[f"base_model.model.{path}.lora_{matrix}.weight"].double() for matrix in "AB")
        residual, rank = ((update - up @ down).norm() / update.norm()).item(), len(down)
        values = torch.linalg.svdvals(update)
        assert residual == pytest.approx((values[rank:].norm() / update.norm()).item(), rel=1e-4)  # none is smaller
        assert stored["modules"][path] == pytest.approx(
            {"rank": rank, "norm": update.norm().item(), "residual": residual}
        )
        assert rank == 5 if words[0] == "--rank" else residual <= 0.3 < values[rank - 1 :].norm() / update.norm()
        assert f"{rank:5d} {residual:10.3e}  {path}" in printed
        squares.append((update.norm() ** 2, (update - up @ down).norm() ** 2))
    assert len(squares) == 4
    norm, lost = (sum(values) for values in zip(*squares, strict=True))
    assert stored["residual"] == pytest.approx(((lost / norm) ** 0.5).item())
    assert stored["exported_from"] == "LOHA"


@pytest.mark.parametrize("name", NO_UPDATE)
def test_a_method_without_a_linear_update_is_refused_with_a_sentence(tmp_path, bases, name):
    save(name, tmp_path / "saved")
    with pytest.raises(ValueError, match=NO_UPDATE[name]):
        export_singular(tmp_path / "saved", tmp_path / "lora", base=bases["roberta"])
    assert not (tmp_path / "lora").exists()


def test_a_bottleneck_with_an_activation_is_refused_with_its_own_words(tmp_path, bases):
    save("loretta_adp", tmp_path / "saved", "llama_lm")
    with pytest.raises(ValueError, match="could hold: LoRETTA_adp cannot be merged: its bottleneck has an activation"):
        export_singular(tmp_path / "saved", tmp_path / "lora", base=bases["llama_lm"])


def test_what_else_changes_in_the_base_model_is_named(tmp_path, bases):
    config = LoraConfig(r=2, target_modules=["query"], bias="all", task_type="SEQ_CLS")
    moved(get_peft_model(backbone("roberta").model, config)).save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"it also changes .*roberta\.encoder\.layer\.0\.output\.dense\.bias"):
        export_singular(tmp_path / "saved", tmp_path / "lora", base=bases["roberta"])


def test_a_head_with_other_labels_than_the_base_models_is_copied(tmp_path, bases):
    base = backbone("roberta").model
    base.classifier.out_proj = torch.nn.Linear(32, 5)
    model = moved(get_peft_model(base, LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")))
    model.save_pretrained(tmp_path / "saved")
    export_singular(tmp_path / "saved", tmp_path / "lora", base=bases["roberta"])
    key = "base_model.model.classifier.out_proj.weight"
    written, head = load_file(tmp_path / "lora" / "adapter_model.safetensors"), dict(model.named_parameters())
    assert torch.equal(written[key], head["base_model.model.classifier.modules_to_save.default.out_proj.weight"])


def test_the_weights_of_the_base_model_are_asked_for(tmp_path, capsys):
    save("lora", tmp_path / "saved")
    backbone("roberta").model.config.save_pretrained(tmp_path / "base")
    place = ["--base", str(tmp_path / "base"), "--to", str(tmp_path / "lora")]
    assert main(["export", str(tmp_path / "saved"), *place]) == 2
    assert "the weights of the base model are needed, and are not there" in capsys.readouterr().err


@pytest.mark.parametrize(("values", "sentence"), [((0,), "rank of a LoRA must be"), ((None, 1.0), "below 1, got 1.0")])
def test_a_truncation_that_keeps_nothing_is_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        Truncation(*values)
