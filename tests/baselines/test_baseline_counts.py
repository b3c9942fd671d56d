"""Counts at real sizes, on the meta device: the closed form, the live model and the published figure agree.

Sources: the papers' tables for LoRA, VeRA, BitFit and LoRETTA; IA3's formula layers * (d_k + d_v + d_ff); arithmetic.
"""

from dataclasses import replace

import pytest

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
SEVEN_BILLION = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "intermediate_size": 11008,
}
MODELS = {
    "roberta-base": ("roberta", ROBERTA | BASE),
    "roberta-large": ("roberta", ROBERTA | LARGE),
    "llama-2-7b": ("llama", SEVEN_BILLION),
}
DENSE_HEADS = {"roberta-base": 592_130, "roberta-large": 1_051_650, "llama-2-7b": 2 * 4096}
TRAIN_HEADS = {"roberta-base": 1_848 + 1_538, "roberta-large": 2_264 + 2_050, "llama-2-7b": 2 * 4096}


def count(model):
    """Return trained numbers as (adapter, norms, head)."""
    sizes = {path: weight.numel() for path, weight in model.named_parameters() if weight.requires_grad}
    head = sum(size for path, size in sizes.items() if ".classifier." in f".{path}" or ".score." in f".{path}")
    norms = sum(size for path, size in sizes.items() if "norm" in path.lower())
    return sum(sizes.values()) - head - norms, norms, head


@pytest.fixture
def attached(adapter, backbone):
    def build(name, rank, model_name):
        family, sizes = MODELS[model_name]
        method, real = adapter(name, rank), backbone(family, device="meta", **sizes)
        return method, real.geometry, method.attach(real, "SEQ_CLS")

    return build


@pytest.mark.parametrize(
    ("name", "rank", "model_name", "expected"),
    [
        ("lora", 8, "roberta-base", 294_912),
        ("lora", 8, "roberta-large", 786_432),
        ("dora", 8, "roberta-base", 313_344),
        ("vera", 1024, "roberta-base", 43_008),
        ("vera", 256, "roberta-large", 61_440),
        ("ia3", 8, "roberta-base", 55_296),
    ],
)
def test_a_peft_adapter_has_the_published_count(attached, name, rank, model_name, expected):
    method, geometry, model = attached(name, rank, model_name)
    assert count(model) == (expected, 0, DENSE_HEADS[model_name])
    assert method.parameters(geometry) == expected


def test_adalora_counts_what_it_holds_before_any_cut(attached):
    method, geometry, _ = attached("adalora", 8, "roberta-base")
    assert method.parameters(geometry) == 1_991_520


@pytest.mark.parametrize(
    ("name", "rank", "model_name", "cores", "norms"),
    [
        ("loretta_rep", 5, "roberta-base", 27_840, 38_400),
        ("loretta_adp", 5, "roberta-base", 57_408, 38_400),
        ("loretta_rep", 5, "roberta-large", 61_440, 100_352),
        ("loretta_adp", 5, "roberta-large", 132_864, 100_352),
        ("loretta_rep", 8, "llama-2-7b", 249_856, 266_240),
        ("loretta_adp", 8, "llama-2-7b", 614_400, 266_240),
        ("loretta_rep", 5, "llama-2-7b", 102_400, 266_240),
        ("loretta_adp", 5, "llama-2-7b", 407_040, 266_240),
    ],
)
def test_loretta_has_the_published_count_of_cores_and_norms(attached, name, rank, model_name, cores, norms):
    method, geometry, model = attached(name, rank, model_name)
    adapter_count, norm_count, head = count(model)
    assert (adapter_count, norm_count) == (cores, norms)
    assert method.parameters(geometry) == cores
    if rank == 5:
        assert head == TRAIN_HEADS[model_name]


@pytest.mark.parametrize(
    ("places", "expected"),
    [({}, 585_120), ({"projections": ["gate", "up", "down"], "before": ["gate_proj", "up_proj"]}, 877_680)],
)
def test_loretta_adp_on_llama_2_13b_counts_the_papers_places_or_the_released_ones(adapter, backbone, places, expected):
    sizes = {"hidden_size": 5120, "num_hidden_layers": 1, "num_attention_heads": 40, "head_dim": 128}
    sizes |= {"num_key_value_heads": 40, "intermediate_size": 13824}
    real, before = backbone("llama", device="meta", **sizes), {key: places[key] for key in places if key == "before"}
    method = adapter("loretta_adp", 5, **before)
    method = replace(method, projections=places.get("projections", method.projections), norms=False)
    trained = [weight for path, weight in method.attach(real, "SEQ_CLS").named_parameters() if "loretta_adp_" in path]
    assert 40 * method.parameters(real.geometry) == 40 * sum(weight.numel() for weight in trained) == expected


@pytest.mark.parametrize(("name", "total"), [("loretta_rep", 69_626), ("loretta_adp", 99_194)])
def test_loretta_on_roberta_base_trains_the_papers_total(attached, name, total):
    assert sum(count(attached(name, 5, "roberta-base")[2])) == total


@pytest.mark.parametrize(("rank", "total"), [(2, 67_778), (10, 206_914), (20, 629_954)])
def test_loretta_adp_follows_the_papers_study_of_ranks(attached, rank, total):
    assert sum(count(attached("loretta_adp", rank, "roberta-base")[2])) == total


@pytest.mark.parametrize("model_name", ["roberta-base", "roberta-large"])
def test_bitfit_trains_all_biases_of_the_backbone(attached, model_name):
    method, geometry, model = attached("bitfit", 1, model_name)
    adapter_count, norms, head = count(model)
    assert method.parameters(geometry) == adapter_count + norms
    assert head == DENSE_HEADS[model_name]
    if model_name == "roberta-base":
        assert adapter_count + norms == 102_144


def test_full_fine_tuning_trains_every_weight(attached):
    method, geometry, model = attached("full", 1, "roberta-base")
    assert sum(count(model)) == sum(weight.numel() for weight in model.parameters()) == 124_647_170
    assert method.parameters(geometry) is None


def test_the_head_alone_has_no_adapter_weights(attached):
    method, geometry, model = attached("head_only", 1, "roberta-base")
    assert count(model) == (0, 0, DENSE_HEADS["roberta-base"])
    assert method.parameters(geometry) == 0


@pytest.mark.parametrize("hidden", [96, 128, 384])
@pytest.mark.parametrize("name", ["loretta_rep", "loretta_adp"])
@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_loretta_fits_sizes_outside_the_released_table(attached, backbone, adapter, name, hidden, family):
    changes = {"hidden_size": hidden, "head_dim": hidden // 4} if family == "llama" else {"hidden_size": hidden}
    small, method = backbone(family, device="meta", **changes), adapter(name, 5)
    assert count(method.attach(small, "SEQ_CLS"))[0] == method.parameters(small.geometry) > 0
