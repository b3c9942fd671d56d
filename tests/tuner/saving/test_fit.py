import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from lorta.cli.main import main
from lorta.geometry import Geometry
from lorta.tuner import LortaConfig, LortaLinear
from lorta.tuner.export import export_model
from lorta.tuner.fit import FitSettings, fit_folder, fit_model
from tests.tuner.saving.export_backbones import MODELS, build, inputs

RECOVERABLE = [(name, "natural") for name in MODELS] + [("roberta", "input"), ("roberta", "output"), ("gpt2", "output")]


def filled(model, scale=0.5):
    """The model with adapter and head far from their start."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def lora(name="roberta", **settings):
    values = {"r": 2, "lora_alpha": 3, "target_modules": ["query", "value"], "task_type": MODELS[name][1]} | settings
    return filled(get_peft_model(build(name), LoraConfig(**values)))


def logits(model, name="roberta"):
    with torch.no_grad():
        return model(**inputs(name)).logits


def updates(model):
    """The dense updates of a LoRTA's layers, (outputs, inputs), by module path."""
    return {
        path: layer.get_delta_weight("default").detach()
        for path, layer in model.base_model.model.named_modules()
        if isinstance(layer, LortaLinear)
    }


@pytest.mark.parametrize(("name", "head_side"), RECOVERABLE)
def test_a_lora_exported_from_a_lorta_is_found_again(tmp_path, name, head_side):
    config = LortaConfig(r=3, alpha=2.0, head_side=head_side, task_type=MODELS[name][1])
    model = filled(get_peft_model(build(name), config))
    export_model(model, tmp_path / "lora")
    build(name).config.save_pretrained(tmp_path / "base")
    fitted = fit_folder(tmp_path / "lora", tmp_path / "back", FitSettings(3, head_side), tmp_path / "base")
    assert fitted.fit.residual < 1e-4
    again = PeftModel.from_pretrained(build(name), tmp_path / "back").eval()
    assert again.peft_config["default"].geometry == config.geometry
    assert_close(logits(again, name), logits(model, name), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"r": 3, "rank_pattern": {"value": 2, r"layer\.1\.attention\.self\.query": 1}, "alpha_pattern": {"query": 5}},
        {"target_modules": ["query", "key", "value", "attention.output.dense"], "layers_to_transform": [0, 2]},
        {"target_modules": ["key"], "layers_to_transform": [1]},
    ],
)
def test_the_reported_residuals_are_those_between_the_updates_of_both_models(tmp_path, settings):
    model = lora(**settings)
    config, fit = fit_model(model, tmp_path, FitSettings(2, restarts=2, sweeps=50))
    again = PeftModel.from_pretrained(build("roberta"), tmp_path)
    geometry, (wrong, size) = Geometry.from_config(model.config.to_dict()), (0.0, 0.0)
    for path, found in updates(again).items():
        wanted = model.base_model.model.get_submodule(path).get_delta_weight("default").detach()
        layer, (role,) = geometry.locate(path)
        place = config.geometry["layers"].index(layer), config.geometry["roles"].index(role)
        assert fit.slices[place] == pytest.approx(((found - wanted).norm() / wanted.norm()).item(), rel=1e-4)
        wrong, size = wrong + (found - wanted).square().sum(), size + wanted.square().sum()
    assert len(updates(again)) == fit.slices.numel()
    assert fit.residual == pytest.approx((wrong / size).sqrt().item(), rel=1e-4)
    assert 0.05 < fit.residual < 1


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "phi3"])
def test_the_residual_of_a_lora_on_fused_projections_is_that_of_their_whole_update(tmp_path, name):
    module = {"gpt2": "c_attn", "gpt_neox": "query_key_value", "phi3": "qkv_proj"}[name]
    model = lora(name, target_modules=[module])
    config, fit = fit_model(model, tmp_path, FitSettings(2, restarts=1, sweeps=50))
    wrong, size = 0.0, 0.0
    for path, found in updates(PeftModel.from_pretrained(build(name), tmp_path)).items():
        wanted = model.base_model.model.get_submodule(path).get_delta_weight("default").detach()
        wrong, size = wrong + (found - wanted).square().sum(), size + wanted.square().sum()
    assert config.geometry["roles"] == ["q", "k", "v"]
    assert fit.residual == pytest.approx((wrong / size).sqrt().item(), rel=1e-4)
    assert 0.05 < fit.residual < 1


def test_a_larger_rank_comes_nearer_and_a_rank_large_enough_loses_nothing(tmp_path):
    model = lora(r=1, target_modules=["query"], layers_to_transform=[0])
    residuals = [fit_model(model, tmp_path, FitSettings(rank)).fit.residual for rank in (1, 2, 4)]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[-1] < 1e-6  # one outer product of 24 x (4 heads of 6) entries has four rows to a head_dim


def test_a_folder_gives_the_factors_and_the_head_of_the_model(tmp_path):
    model = lora()
    model.save_pretrained(tmp_path / "lora")
    build("roberta").config.save_pretrained(tmp_path / "base")
    fit_model(model, tmp_path / "from_model", FitSettings(2))
    fit_folder(tmp_path / "lora", tmp_path / "from_folder", FitSettings(2), tmp_path / "base" / "config.json")
    weights = [load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("from_model", "from_folder")]
    assert_close(weights[0], weights[1])
    head = model.base_model.model.classifier.modules_to_save["default"].dense.weight
    assert torch.equal(weights[0]["base_model.model.classifier.dense.weight"], head)
    configs = [json.loads((tmp_path / f / "adapter_config.json").read_text()) for f in ("from_model", "from_folder")]
    assert configs[0] == configs[1]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"use_dora": True}, "sets use_dora"),
        ({"bias": "all"}, "sets bias"),
        ({"init_lora_weights": "pissa"}, "changes base weights"),
        ({"target_modules": ["query", "intermediate.dense"]}, "this LoRA also adapts up"),
        ({"target_modules": ["query", "word_embeddings"]}, "not a plain LoRA on linear layers"),
        ({"target_modules": ["query", "classifier.dense"], "task_type": None}, "also selects classifier.dense"),
        ({"exclude_modules": r".*layer\.1\.attention\.self\.value"}, "Select the same projections in each layer"),
    ],
)
def test_what_is_no_plain_lora_on_a_grid_of_projections_is_refused(tmp_path, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_model(lora(**settings), tmp_path, FitSettings(2))


def test_neither_a_lorta_nor_an_adalora_is_fitted(tmp_path):
    model = get_peft_model(build("roberta"), LortaConfig(r=2))
    with pytest.raises(ValueError, match="is a LORTA adapter, not LORA"):
        fit_model(model, tmp_path, FitSettings(2))
    model = get_peft_model(build("roberta"), AdaLoraConfig(target_modules=["query"], total_step=10))
    with pytest.raises(ValueError, match="is a ADALORA adapter, not LORA"):
        fit_model(model, tmp_path, FitSettings(2))


def test_a_head_side_that_the_shapes_do_not_allow_is_refused(tmp_path):
    model = lora("llama", target_modules=["q_proj", "k_proj"])
    with pytest.raises(ValueError, match="Use head_side='natural'"):
        fit_model(model, tmp_path, FitSettings(2, "input"))


def test_the_command_goes_there_and_back_and_reports_the_residuals(tmp_path, capsys):
    model = filled(get_peft_model(build("roberta"), LortaConfig(r=2, task_type="SEQ_CLS")))
    model.save_pretrained(tmp_path / "lorta")
    build("roberta").config.save_pretrained(tmp_path / "base")
    base = ["--base", str(tmp_path / "base")]
    assert main(["export", str(tmp_path / "lorta"), *base, "--to", str(tmp_path / "lora")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'lora'}: LoRA of rank 2 on 12 modules\n"
    back = str(tmp_path / "back")
    assert main(["fit", str(tmp_path / "lora"), *base, "--rank", "2", "--restarts", "3", "--to", back]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{back}: LoRTA of rank 2, {2 * (24 + 6 + 4 + 3 + 4)} parameters"
    assert lines[2].split() == ["layer", "q", "k", "v", "o"]
    assert [line.split()[0] for line in lines[3:]] == ["0", "1", "2"]
    assert all(float(value) < 1e-4 for line in lines[3:] for value in line.split()[1:])
    again = PeftModel.from_pretrained(build("roberta"), back).eval()
    assert_close(logits(again), logits(model), rtol=1e-3, atol=1e-3)


def test_bad_input_is_one_sentence_and_status_two(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--to", str(tmp_path / "to")]) == 2
    assert capsys.readouterr().err.startswith(f"lorta export: {tmp_path}: no adapter is saved there")
    save_file({"any": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    for command, kind in ((["export"], "LORTA"), (["fit", "--rank", "2"], "LORA")):
        (tmp_path / "adapter_config.json").write_text(f'{{"peft_type": "{kind}"}}')
        assert main([*command, str(tmp_path), "--to", f"{tmp_path}/x/.."]) == 2
        assert "would replace the one that is read" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["fit", str(tmp_path), "--to", "x"])
    assert "--rank" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["export"]])
def test_help_and_wrong_words_cost_no_torch(words):
    code = (
        "import sys\nfrom lorta.cli.main import main\ntry:\n    main(sys.argv[1:])\n"
        "finally:\n    assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == (2 if words == ["export"] else 0), done.stderr
    assert "usage: lorta" in done.stdout + done.stderr


def test_the_console_script_and_the_module_are_the_same_command():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["lorta"] == f"{main.__module__}:{main.__name__}"
    done = subprocess.run([sys.executable, "-m", "lorta", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: lorta")
    assert {"export", "fit"} <= set(done.stdout.split())
