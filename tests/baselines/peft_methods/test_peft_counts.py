"""Counts of PEFT's own tuners at real sizes: the closed form, the built model and the published figure agree.

Published: the parameter columns of the papers' GLUE tables, printed to two digits; the others are the formula's.
"""

import pytest
from test_baseline_counts import BASE, DENSE_HEADS, MODELS, ROBERTA, count

from lorta.geometry import ModelContext

NAMES = ["rslora", "pissa", "loha", "lokr", "oft", "boft", "hra", "vblora", "fourierft", "randlora", "c3a", "shira"]
NAMES += ["ln_tuning", "prefix_tuning", "prompt_tuning", "miss", "road", "delora", "hira", "gralora", "unilora", "beft"]
NAMES += ["psoft", "waveft", "pvera", "lora_plus", "peanut", "deft", "glora", "velora", "bd_lora", "mica", "olora"]
NAMES += ["adamss", "kasa", "monteclora", "lora_fa", "frod", "supertuning", "p_tuning"]
NAMES += ["adamss_adaptive", "trainable_tokens"]
# a decomposition or a random choice of places, which the meta device cannot make
NO_META = {"monteclora", "pissa", "shira", "psoft", "mica", "olora", "adamss", "adamss_adaptive", "frod", "supertuning"}


@pytest.mark.parametrize(
    ("name", "rank", "model_name", "expected", "published"),
    [
        ("rslora", 8, "roberta-base", 294_912, 0.29e6),
        ("pissa", 8, "roberta-large", 786_432, 1.84e6 - 1_051_650),  # printed with the head
        ("loha", 8, "roberta-base", 589_824, None),
        ("lokr", 8, "roberta-base", 26_112, None),
        ("oft", 8, "roberta-base", 1_285_632, 1.29e6),  # PSOFT's table 2, DeBERTaV3-base, which has the same matrices
        ("boft", 8, "roberta-base", 1_410_048, 1.41e6),  # PSOFT's table 2
        ("hra", 8, "roberta-base", 663_552, 0.66e6),  # DeBERTaV3-base as well
        ("vblora", 4, "roberta-base", 74_880, None),
        ("fourierft", 8, "roberta-base", 24_000, 0.024e6),
        ("fourierft", 8, "roberta-large", 48_000, 0.048e6),
        ("randlora", 64, "roberta-base", 718_848, 0.7e6),
        ("randlora", 100, "roberta-large", 1_780_416, 1.8e6),
        ("c3a", 8, "roberta-base", 110_592, 0.111e6),
        ("c3a", 8, "roberta-large", 393_216, None),
        ("shira", 8, "roberta-base", 294_912, None),
        ("ln_tuning", 8, "roberta-base", 38_400, None),
        ("ln_tuning", 8, "llama-2-7b", 266_240, None),
        ("prefix_tuning", 8, "roberta-base", 368_640, None),
        ("prefix_tuning", 8, "llama-2-7b", 5_242_880, None),
        ("prompt_tuning", 8, "roberta-base", 15_360, None),
        ("miss", 8, "roberta-base", 147_456, None),
        ("road", 8, "roberta-base", 82_944, 0.0007 * 124_055_040),
        ("delora", 8, "roberta-base", 294_936, 0.3e6),
        ("hira", 8, "roberta-base", 294_912, None),
        ("gralora", 8, "roberta-base", 294_912, None),
        ("unilora", 4, "roberta-base", 23_040, 0.023e6),
        ("beft", 8, "roberta-base", 9_216, None),
        ("psoft", 46, "roberta-base", 81_144, 0.08e6),
        ("waveft", 8, "roberta-base", 62_208, None),
        ("pvera", 256, "roberta-base", 30_720, None),
        ("pvera", 1, "roberta-base", 18_480, None),
        ("mica", 1, "roberta-base", 18_432, None),
        ("olora", 8, "roberta-base", 294_912, None),
        ("lora_plus", 8, "roberta-base", 294_912, None),
        ("peanut", 1, "roberta-base", 36_864, None),
        ("deft", 1, "roberta-base", 36_864, None),
        ("glora", 8, "roberta-base", 96, None),
        ("glora", 8, "llama-2-7b", 128, None),
        ("adamss", 13, "roberta-base", 19_992, None),
        ("adamss_adaptive", 13, "roberta-base", 19_992, None),
        ("trainable_tokens", 8, "roberta-base", 6_144, None),
        ("adamss", 100, "roberta-base", 30_432, None),
        ("velora", 8, "roberta-base", 294_912, None),
        ("bd_lora", 2, "roberta-base", 55_296, None),
        ("kasa", 1, "roberta-base", 36_888, None),
        ("monteclora", 1, "roberta-base", 36_864 + 24 * 9, None),
        ("lora_fa", 1, "roberta-base", 18_432, None),
        ("frod", 8, "roberta-base", 24 * (768 + 64), None),
        ("supertuning", 8, "roberta-base", 24 * 256, None),
        ("p_tuning", 8, "roberta-base", 20 * 768 + 12_304 + 272 + 13_056, None),
    ],
)
def test_the_closed_form_gives_the_published_count(adapter, backbone, name, rank, model_name, expected, published):
    family, sizes = MODELS[model_name]
    assert adapter(name, rank).parameters(backbone(family, device="meta", **sizes).geometry) == expected
    assert published is None or expected == pytest.approx(published, rel=0.06)


@pytest.mark.parametrize("model_name", ["roberta-base", "roberta-large", "llama-2-7b"])
@pytest.mark.parametrize("name", sorted(set(NAMES) - NO_META))
def test_a_built_layer_of_real_width_has_the_count_of_the_closed_form(adapter, backbone, name, model_name):
    if (name, model_name) == ("boft", "llama-2-7b"):
        pytest.skip("PEFT builds BOFT's permutations as dense matrices, even for the meta device: 1.6 GB a layer")
    family, sizes = MODELS[model_name]
    method, real = adapter(name, 8), backbone(family, device="meta", **sizes | {"num_hidden_layers": 1})
    if sentence := method.unsupported(ModelContext(real.geometry)):
        assert (name, family) in {("beft", "llama"), ("prompt_tuning", "llama"), ("p_tuning", "llama")}, sentence
        return
    trained, norms, head = count(method.attach(real, "SEQ_CLS"))
    assert method.parameters(real.geometry) == trained + norms > 0
    assert head == DENSE_HEADS[model_name]


@pytest.mark.parametrize("name", sorted(NO_META))
def test_what_the_meta_device_cannot_build_is_counted_on_the_cpu(adapter, backbone, name):
    sizes = ROBERTA | BASE | {"num_hidden_layers": 1, "vocab_size": 48}
    method, real = adapter(name, 8), backbone("roberta", **sizes)
    few = {"psoft": 6 * (8 * 7 // 2 + 2 * 8), "mica": 2 * 8 * 768} | dict.fromkeys(
        ("adamss", "adamss_adaptive"), 2 * 808
    )
    few |= {"frod": 2 * (768 + 64), "supertuning": 2 * 256, "monteclora": 2 * (8 * (768 + 768) + 8 + 8)}
    expected = few.get(name, 294_912 // 12)
    assert count(method.attach(real, "SEQ_CLS")) == (expected, 0, DENSE_HEADS["roberta-base"])
    assert method.parameters(real.geometry) == expected


@pytest.mark.parametrize(("block_size", "expected"), [(768, 18_432), (384, 36_864), (128, 110_592), (100, 147_456)])
def test_a_block_of_c3a_is_the_largest_divisor_that_was_asked_for(adapter, backbone, block_size, expected):
    family, sizes = MODELS["roberta-base"]  # 0.018M and 0.111M are the paper's; 96 divides 768, 100 does not
    real = backbone(family, device="meta", **sizes)
    assert adapter("c3a", block_size=block_size).parameters(real.geometry) == expected


def test_the_papers_count_of_boft_is_that_of_one_factor(adapter, backbone):
    family, sizes = MODELS["roberta-base"]
    real = backbone(family, device="meta", **sizes)
    assert (
        adapter("boft", boft_n_butterfly_factor=1).parameters(real.geometry) == 746_496
    )  # 0.75M in its own table, for two


@pytest.mark.parametrize("hidden", [96, 128, 384])
@pytest.mark.parametrize("name", sorted(set(NAMES) - NO_META))
def test_every_method_fits_other_widths(adapter, backbone, name, hidden):
    method, small = (
        adapter(name, 4),
        backbone("roberta", device="meta", hidden_size=hidden, intermediate_size=2 * hidden),
    )
    assert method.parameters(small.geometry) == sum(count(method.attach(small, "SEQ_CLS"))[:2]) > 0
