"""LoRETTA_rep and LoRETTA_adp as PEFT tuners on tiny models."""

import subprocess
import sys

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.nn import functional

from baselines.loretta.tuner import Branch, LorettaAdpConfig, LorettaRepConfig

METHODS = ["loretta_rep", "loretta_adp"]
MODELS = ["roberta", "llama"]
INITS = ["faithful", "subtract_initial_delta", "zero_last_core"]


def logits(model, tokens):
    return model.eval()(tokens).logits.detach()


def rep_layer(model):
    return model.base_model.model.roberta.encoder.layer[1].attention.self.query


def adp_layer(model):
    return model.base_model.model.roberta.encoder.layer[1].output.dense


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("init", ["subtract_initial_delta", "zero_last_core"])
def test_the_two_identity_starts_change_nothing(backbone, adapter, tokens, family, method, init):
    expected = logits(backbone(family).model, tokens)
    node = adapter(method, init=init)
    model = get_peft_model(backbone(family).model, node.peft_config(backbone(family), "SEQ_CLS"))
    assert torch.equal(logits(model, tokens), expected)


@pytest.mark.parametrize("method", METHODS)
def test_the_faithful_start_changes_the_output(backbone, adapter, tokens, method):
    expected = logits(backbone("roberta").model, tokens)
    node = adapter(method)
    model = get_peft_model(backbone("roberta").model, node.peft_config(backbone("roberta"), "SEQ_CLS"))
    assert float((logits(model, tokens) - expected).abs().max()) > 1e-3
    assert not node.identity_at_start


def test_an_identity_start_stays_exact_under_a_bf16_model(backbone, adapter, tokens):
    expected = logits(backbone("roberta", dtype=torch.bfloat16).model, tokens)
    for method in METHODS:
        base = backbone("roberta", dtype=torch.bfloat16)
        config = adapter(method, init="subtract_initial_delta").peft_config(base, "SEQ_CLS")
        model = get_peft_model(base.model, config)
        assert torch.equal(logits(model, tokens), expected)
        trained = [weight for path, weight in model.named_parameters() if "branch" in path]
        assert {weight.dtype for weight in trained} == {torch.float32}


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_every_norm_and_nothing_else_of_the_backbone_is_trained(backbone, adapter, family, method):
    base = backbone(family)
    norms = {
        path for path, module in base.model.named_modules() if type(module).__name__ in ("LayerNorm", "LlamaRMSNorm")
    }
    model = adapter(method).attach(base, "SEQ_CLS").base_model.model
    trained = {path for path, weight in model.named_parameters() if weight.requires_grad}
    assert {path.split(".modules_to_save")[0] for path in trained if "norm" in path.lower()} == norms
    heads = base.geometry.architecture.head
    assert not [
        path
        for path in trained
        if "_branch." not in path and path.split(".")[0] not in heads and path.split(".modules_to_save")[0] not in norms
    ]


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("method", METHODS)
def test_every_trained_weight_gets_a_gradient(backbone, adapter, tokens, randomise, method, init):
    model = adapter(method, init=init).attach(backbone("roberta"), "SEQ_CLS")
    randomise(model)  # at a zero start the gradient of most cores is zero, as that of LoRA's A
    model(tokens, labels=torch.tensor([0, 1, 0])).loss.backward()
    without = [path for path, weight in model.named_parameters() if weight.requires_grad and not weight.grad.any()]
    assert without == []


def test_the_rep_update_is_the_scaled_product_of_two_trains(backbone, adapter, randomise):
    model = adapter("loretta_rep").attach(backbone("roberta"), "SEQ_CLS")
    randomise(model)
    layer = rep_layer(model)
    branch = layer.loretta_rep_branch["default"]
    expected = 16 / 8 * branch.down.weight_matrix() @ branch.up.weight_matrix()
    torch.testing.assert_close(layer.get_delta_weight("default"), expected.T)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("family", MODELS)
def test_a_merged_rep_model_gives_the_same_output(backbone, adapter, tokens, randomise, family, init):
    model = adapter("loretta_rep", init=init).attach(backbone(family), "SEQ_CLS")
    randomise(model)
    expected = logits(model, tokens)
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(logits(model, tokens), expected, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model, tokens), expected, rtol=1e-4, atol=1e-4)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged, tokens), expected, rtol=1e-4, atol=1e-4)
    assert not [path for path, _ in merged.named_parameters() if "loretta" in path]


def test_adp_adds_a_bottleneck_behind_its_projection(backbone, adapter, randomise):
    model = adapter("loretta_adp").attach(backbone("roberta"), "SEQ_CLS")
    randomise(model)
    layer, x = adp_layer(model), torch.randn(3, 32)
    down, up = layer.loretta_adp_branch["default"].down, layer.loretta_adp_branch["default"].up
    hidden = layer.base_layer(x)
    expected = hidden + functional.relu(hidden @ down.weight_matrix() + down.bias) @ up.weight_matrix() + up.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_subtracted_start_leaves_only_what_training_adds(backbone, adapter, randomise, method):
    model = adapter(method, init="subtract_initial_delta", dropout=0.0).attach(backbone("roberta"), "SEQ_CLS")
    layer = {"loretta_rep": rep_layer, "loretta_adp": adp_layer}[method](model)
    x = torch.randn(3, layer.base_layer.in_features)
    at_start = branch_output(layer, method, x)
    randomise(model)
    expected = layer.base_layer(x) + branch_output(layer, method, x) - at_start
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def branch_output(layer, method, x):
    """Return what the branch's cores and biases give now, by dense matrices."""
    if method == "loretta_rep":
        branch = layer.loretta_rep_branch["default"]
        return (16 / 8 * x @ branch.down.weight_matrix() @ branch.up.weight_matrix()).detach()
    down, up = layer.loretta_adp_branch["default"].down, layer.loretta_adp_branch["default"].up
    hidden = functional.relu(layer.base_layer(x) @ down.weight_matrix() + down.bias)
    return (hidden @ up.weight_matrix() + up.bias).detach()


@pytest.mark.parametrize(("config_class", "bias"), [(LorettaRepConfig, False), (LorettaAdpConfig, True)])
def test_only_the_last_core_and_its_bias_start_at_zero(config_class, bias):
    branches = []
    for init in ("faithful", "zero_last_core"):
        torch.manual_seed(4)
        branches.append(dict(Branch(config_class(init=init), 24, 8, 24, bias).named_parameters()))
    released, zeroed = branches
    last = f"up.cores.{sum('up.cores' in path for path in released) - 1}"
    changed = {path for path in released if not torch.equal(released[path], zeroed[path])}
    assert changed == ({last, "up.bias"} if bias else {last})
    assert not any(zeroed[path].any() for path in changed)


@pytest.mark.parametrize("method", METHODS)
def test_every_start_trains_the_same_weights(backbone, adapter, method):
    paths = []
    for init in INITS:
        model = adapter(method, init=init).attach(backbone("roberta"), "SEQ_CLS")
        paths.append({path: weight.shape for path, weight in model.named_parameters() if weight.requires_grad})
    assert paths[0] == paths[1] == paths[2]


def test_adp_says_why_it_cannot_be_merged(backbone, adapter):
    model = adapter("loretta_adp").attach(backbone("roberta"), "SEQ_CLS")
    with pytest.raises(NotImplementedError, match="LoRETTA_adp cannot be merged: its bottleneck has an activation"):
        model.merge_adapter()
    with pytest.raises(NotImplementedError, match="LoRETTA_adp cannot be merged"):
        model.merge_and_unload()


@pytest.mark.parametrize("method", METHODS)
def test_a_disabled_adapter_leaves_the_base_model(backbone, adapter, tokens, randomise, method):
    node = adapter(method)
    expected = logits(backbone("roberta").model, tokens)
    model = get_peft_model(backbone("roberta").model, node.peft_config(backbone("roberta"), "SEQ_CLS"))
    randomise(model)
    with model.disable_adapter():
        assert torch.equal(logits(model, tokens), expected)


@pytest.mark.parametrize("config_class", [LorettaRepConfig, LorettaAdpConfig])
def test_two_adapters_switch_and_one_can_be_deleted(backbone, tokens, config_class):
    base = backbone("roberta")
    targets = base.geometry.target_regex(["q", "v"])
    model = get_peft_model(base.model, config_class(target_modules=targets, tensor_rank=2))
    first = logits(model, tokens)
    model.add_adapter("other", config_class(target_modules=targets, tensor_rank=4))
    assert torch.equal(logits(model, tokens), first)
    model.set_adapter("other")
    assert not torch.allclose(logits(model, tokens), first)
    assert all(".other." in path for path, weight in model.named_parameters() if weight.requires_grad)
    model.set_adapter("default")
    model.delete_adapter("other")
    assert torch.equal(logits(model, tokens), first)


LOAD = """
import sys, torch
from baselines.loretta import tuner
from tiny_backbones import build_backbone
from peft import PeftModel
for folder in sys.argv[1:]:
    torch.manual_seed(7)
    base = build_backbone("roberta").model
    model = PeftModel.from_pretrained(base, folder).eval()
    saved = torch.load(folder + "/expected.pt", weights_only=True)
    torch.testing.assert_close(model(saved["tokens"]).logits, saved["logits"])
print("equal")
"""


def test_a_saved_adapter_gives_the_same_output_in_a_new_process(
    backbone, adapter, tokens, randomise, tmp_path, request
):
    folders = []
    for method in METHODS:
        for init in INITS:
            base = backbone("roberta")
            model = get_peft_model(base.model, adapter(method, init=init).peft_config(base, "SEQ_CLS"))
            randomise(model)
            folders.append(str(tmp_path / f"{method}_{init}"))
            model.save_pretrained(folders[-1])
            torch.save({"tokens": tokens, "logits": logits(model, tokens)}, f"{folders[-1]}/expected.pt")
    environment = {
        "PYTHONPATH": f"{request.config.rootpath}:{request.path.parent}",
        "PYTHONHASHSEED": "5",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-c", LOAD, *folders]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.stdout.strip() == "equal", finished.stderr


def test_a_compressed_head_and_norms_come_back_from_a_checkpoint(backbone, adapter, tokens, randomise, tmp_path):
    for method in METHODS:
        node = adapter(method)
        model = node.attach(backbone("roberta"), "SEQ_CLS")
        randomise(model)
        node.save(model, tmp_path / method)
        again = node.load(backbone("roberta"), "SEQ_CLS", tmp_path / method)
        torch.testing.assert_close(logits(again, tokens), logits(model, tokens))


def test_a_checkpoint_loads_with_little_memory(backbone, tokens, randomise, tmp_path):
    base = backbone("roberta")
    config = LorettaRepConfig(target_modules=base.geometry.target_regex(["q"]), init="subtract_initial_delta")
    model = get_peft_model(base.model, config)
    randomise(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path, low_cpu_mem_usage=True)
    torch.testing.assert_close(logits(again, tokens), logits(model, tokens))


def test_a_checkpoint_carries_the_dimensions_of_its_trains(backbone, tmp_path):
    base = backbone("roberta")
    chosen = {"24x8": [2, 12, 8]}
    config = LorettaRepConfig(target_modules=base.geometry.target_regex(["q"]), shapes=chosen)
    get_peft_model(base.model, config).save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path)
    assert again.peft_config["default"].shapes == {"24x8": [2, 12, 8], "8x24": [8, 6, 4]}
    assert [core.shape[1] for core in rep_layer(again).loretta_rep_branch["default"].down.cores] == [2, 12, 8]


@pytest.mark.parametrize(
    ("config_class", "settings", "message"),
    [
        (LorettaRepConfig, {"tensor_rank": 0}, "LorettaRepConfig.tensor_rank must be at least 1, got 0"),
        (LorettaRepConfig, {"r": 0}, "LorettaRepConfig.r must be at least 1, got 0"),
        (LorettaAdpConfig, {"bottleneck": -1}, "LorettaAdpConfig.bottleneck must be at least 1, got -1"),
        (LorettaAdpConfig, {"activation": "swish"}, "activation must be one of relu, tanh, got 'swish'"),
        (LorettaRepConfig, {"init": "zero"}, "init must be one of faithful, subtract_initial_delta, zero_last_core"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value(config_class, settings, message):
    with pytest.raises(ValueError, match=message):
        config_class(**settings)


def test_a_target_that_is_no_linear_layer_is_refused_by_name(backbone):
    with pytest.raises(TypeError, match=r"embeddings\.word_embeddings' is a Embedding"):
        get_peft_model(backbone("roberta").model, LorettaRepConfig(target_modules=["word_embeddings"]))


def test_a_bottleneck_stands_before_the_targets_that_are_named_so(backbone, tokens, randomise, tmp_path):
    base = backbone("llama")
    config = LorettaAdpConfig(target_modules=["gate_proj", "down_proj"], before=["gate_proj"], bottleneck=4)
    model = get_peft_model(base.model, config).eval()
    randomise(model)
    layer = model.base_model.model.model.layers[0].mlp.gate_proj
    behind = model.base_model.model.model.layers[0].mlp.down_proj
    x, branch = torch.randn(2, 32), layer.loretta_adp_branch["default"]
    torch.testing.assert_close(layer(x), layer.base_layer(x + branch(x, torch.relu)))
    y, branch = behind.base_layer(x), behind.loretta_adp_branch["default"]
    torch.testing.assert_close(behind(x), y + branch(y, torch.relu))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("llama").model, tmp_path)
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)
