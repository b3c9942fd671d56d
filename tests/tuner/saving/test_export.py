import json
import os
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from lorta.tuner import LortaConfig, LortaLinear
from lorta.tuner.export import export_folder, export_model
from lorta.tuner.factors import ORDERS, scaling_factor
from tests.tuner.saving.export_backbones import AUTO_CLASSES, MODELS, build, inputs

PLAIN_PEFT = """
import json, sys
from pathlib import Path
import torch, transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
logits = {}
for case, (folder, auto) in json.loads(sys.argv[1]).items():
    folder = Path(folder)
    base = getattr(transformers, auto).from_pretrained(folder / "base").double().eval()
    model = PeftModel.from_pretrained(base, folder / case / "lora").eval()
    inputs = load_file(folder / "inputs.safetensors")
    with torch.no_grad():
        logits[case] = model(**inputs).logits.contiguous()
        logits[case + " merged"] = model.merge_and_unload(safe_merge=True)(**inputs).logits.contiguous()
assert "lorta" not in sys.modules, "plain PEFT needed lorta"
save_file(logits, sys.argv[2])
"""


class Case(NamedTuple):
    backbone: str
    settings: dict[str, object]


CASES = {f"{name}-{order}": Case(name, {"order": order}) for name in MODELS for order in ORDERS}
CASES |= {
    f"{name}-{side}": Case(name, {"head_side": side})
    for name, side in (("roberta", "input"), ("roberta", "output"), ("gpt2", "output"), ("esm", "input"))
}
CASES |= {
    "roberta-some-layers": Case("roberta", {"layers_to_transform": [2, 0], "target_modules": ["query", "value"]}),
    "roberta-excluded": Case("roberta", {"exclude_modules": r".*layer\.1\..*"}),
    "roberta-rslora": Case("roberta", {"scaling": "alpha/sqrt(r)"}),
    "llama-feedforward": Case("llama", {"target_modules": ["q_proj", "v_proj", "gate_proj", "down_proj"]}),
    "phi3-feedforward": Case("phi3", {"target_modules": ["gate_up_proj", "qkv_proj"], "order": "4_way_per_matrix"}),
    "gpt2-feedforward": Case("gpt2", {"target_modules": ["mlp.c_fc", "mlp.c_proj", "attn.c_attn"]}),
}


def adapted(case: Case, rank: int = 3) -> PeftModel:
    """A model whose adapter and head are far from their start."""
    config = LortaConfig(r=rank, alpha=2.0, task_type=MODELS[case.backbone][1], **case.settings)
    model = get_peft_model(build(case.backbone), config).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = 0.7 if ".lorta_" in name else 0.1
            parameter.data.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Expected logits, and those of a process that knows PEFT but not lorta, of every case; all in float64."""
    root, expected, places = tmp_path_factory.mktemp("exported"), {}, {}
    for name in MODELS:
        build(name).save_pretrained(root / name / "base")
        save_file(inputs(name), root / name / "inputs.safetensors")
    for case, (name, values) in CASES.items():
        model = adapted(Case(name, values)).double()
        export_model(model, root / name / case / "lora")
        with torch.no_grad():
            expected[case] = model(**inputs(name)).logits
            with model.disable_adapter():
                expected[case + " base"] = model(**inputs(name)).logits
        places[case] = str(root / name), AUTO_CLASSES[MODELS[name][1]]
    command = [sys.executable, "-c", PLAIN_PEFT, json.dumps(places), str(root / "logits.safetensors")]
    subprocess.run(command, check=True, timeout=500, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return expected, load_file(root / "logits.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_plain_peft_gives_the_logits_of_the_lorta_it_was_exported_from(elsewhere, case):
    expected, plain = elsewhere
    assert (expected[case] - expected[case + " base"]).abs().max() > 0.1
    # LoRTA and LoRA multiply in another order, so they agree to rounding only. In float32 these models turn it into
    # up to 200 roundings of the largest logit, on some processors; 1e-12 allows 4500 of float64's 2**-52. A wrong row,
    # scaling or layout is 1e9 times larger.
    size = max(expected[case].abs().max().item(), 1.0)
    for logits in (plain[case], plain[case + " merged"]):
        assert logits.dtype == torch.float64
        assert (logits - expected[case]).abs().max() <= 1e-12 * size


@pytest.mark.parametrize("case", ["roberta-5_way", "roberta-some-layers", "roberta-excluded", "gpt2-5_way", "t5-5_way"])
def test_a_folder_and_a_config_of_the_base_give_the_same_files_as_the_model(tmp_path, case):
    model = adapted(CASES[case])
    model.save_pretrained(tmp_path / "lorta")
    build(CASES[case].backbone).config.save_pretrained(tmp_path / "base")  # no weights
    export_model(model, tmp_path / "from_model")
    for base in (tmp_path / "base", tmp_path / "base" / "config.json"):
        from_folder = tmp_path / f"from_{base.name}"
        export_folder(tmp_path / "lorta", from_folder, base)
        configs, weights = [], []
        for folder in (tmp_path / "from_model", from_folder):
            configs.append(json.loads((folder / "adapter_config.json").read_text()))
            weights.append(load_file(folder / "adapter_model.safetensors"))
        assert configs[0] == configs[1]
        assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_the_scaling_is_folded_in_and_fused_modules_have_the_ranks_of_their_projections_added_up(tmp_path):
    lora = export_model(adapted(Case("roberta", {})), tmp_path / "plain")
    assert (lora.r, lora.lora_alpha, lora.rank_pattern, lora.alpha_pattern) == (3, 3, {}, {})
    lora = export_model(adapted(Case("gpt2", {"order": "3_way_per_matrix"})), tmp_path / "fused")
    fused = {f"transformer.h.{layer}.attn.c_attn": 9 for layer in range(2)}
    assert (lora.r, lora.lora_alpha, lora.rank_pattern, lora.alpha_pattern) == (3, 3, fused, fused)
    assert lora.fan_in_fan_out
    assert load_file(tmp_path / "fused" / "adapter_model.safetensors").keys() == {
        f"base_model.model.transformer.h.{layer}.attn.{module}.lora_{matrix}.weight"
        for layer in range(2)
        for module in ("c_attn", "c_proj")
        for matrix in "AB"
    }


def test_only_the_named_adapter_of_several_is_exported_with_its_own_head(tmp_path):
    model = adapted(Case("roberta", {}))
    model.add_adapter("other", LortaConfig(r=2, task_type="SEQ_CLS", target_modules=["query"]))
    lora = export_model(model, tmp_path, adapter_name="other")
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert lora.r == 2
    assert sum("lora_A" in key for key in weights) == 3
    head = model.base_model.model.classifier.modules_to_save["other"].out_proj.weight
    assert torch.equal(weights["base_model.model.classifier.out_proj.weight"], head)


@settings(max_examples=30, deadline=None)
@given(
    order=st.sampled_from(sorted(ORDERS)),
    side=st.sampled_from(["natural", "input", "output"]),
    scaling=st.sampled_from(["alpha/r", "alpha/sqrt(r)", "alpha"]),
    rank=st.integers(1, 5),
    alpha=st.floats(0.1, 30),
    targets=st.sets(st.sampled_from(["query", "key", "value", "attention.output.dense"]), min_size=1),
)
def test_every_exported_product_is_the_update_of_its_layer_with_one_of_its_matrices_rounded_once(
    order, side, scaling, rank, alpha, targets
):
    values = {"order": order, "head_side": side, "scaling": scaling, "target_modules": sorted(targets)}
    model = adapted(Case("roberta", values), rank=rank)
    model.peft_config["default"].alpha = alpha
    for layer in (module for module in model.modules() if isinstance(module, LortaLinear)):
        layer.scaling["default"] = scaling_factor(scaling, alpha, rank)
    with TemporaryDirectory() as folder:
        lora = export_model(model, folder)
        weights = load_file(f"{folder}/adapter_model.safetensors")
    layers = {
        name: module for name, module in model.base_model.model.named_modules() if isinstance(module, LortaLinear)
    }
    assert lora.target_modules == sorted(layers)
    assert lora.lora_alpha == lora.r == rank
    model.double()
    for name, layer in layers.items():
        lora_A, lora_B = (weights[f"base_model.model.{name}.lora_{matrix}.weight"] for matrix in "AB")
        assert lora_A.dtype == lora_B.dtype == torch.float32
        error = lora_B.double() @ lora_A.double() - layer.get_delta_weight("default")
        # One matrix is a factor, which is exact; an entry b of the other, a product, becomes b (1 + d), |d| <= 2**-24,
        # when it is rounded to float32. So an entry of the error is at most 2**-24 times the sum over r of |b_r a_r|.
        # float64's own rounding (fewer than 30 operations with 2**-53) needs 1e-14.
        bound = (2**-24 + 1e-14) * (lora_B.double().abs() @ lora_A.double().abs())
        assert (error.abs() <= bound).all()


def test_a_lora_is_not_exported_and_a_missing_file_is_named(tmp_path):
    lora = get_peft_model(build("roberta"), LoraConfig(target_modules=["query"]))
    with pytest.raises(ValueError, match="is a LORA adapter, not LORTA: only LoRTA is exported"):
        export_model(lora, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json is missing"):
        export_folder(tmp_path, tmp_path / "to")
    adapted(Case("roberta", {})).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not name its base model"):
        export_folder(tmp_path, tmp_path / "to")
    with pytest.raises(ValueError, match="no model configuration is there"):
        export_folder(tmp_path, tmp_path / "to", base=tmp_path / "nowhere")
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"adapter_model\.safetensors is missing"):
        export_folder(tmp_path, tmp_path / "to")


def test_an_adapter_is_not_exported_for_a_base_of_another_geometry(tmp_path):
    adapted(Case("roberta", {})).save_pretrained(tmp_path)
    config = build("roberta").config
    config.num_hidden_layers = 2
    config.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="belongs to another model or other targets"):
        export_folder(tmp_path, tmp_path / "to", base=tmp_path / "base")


def test_an_adapter_without_a_task_type_names_the_class_of_its_base_itself(tmp_path):
    base = transformers.RobertaModel(build("roberta").config)  # bare: its paths have no prefix
    get_peft_model(base, LortaConfig(r=2)).save_pretrained(tmp_path)
    base.config.architectures = ["RobertaForMaskedLM"]
    base.config.save_pretrained(tmp_path / "base")
    lora = export_folder(tmp_path, tmp_path / "to", base=tmp_path / "base")
    assert lora.target_modules[0] == "encoder.layer.0.attention.output.dense"
