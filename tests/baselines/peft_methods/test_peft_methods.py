"""What PEFT's own tuners do under the settings of conf/adapter, where PEFT alone would do something else."""

import warnings

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.lokr.layer import factorization
from safetensors.torch import load_file
from torch.testing import assert_close

from baselines.peft_methods.boft import BlockDiagonal
from baselines.peft_methods.lokr import nearest_to_square
from baselines.peft_methods.prompt_tuning import pooling_layer
from lorta.geometry import ModelContext

FAMILIES = ["roberta", "bert", "deberta", "llama"]
FITTED = ["oft", "boft", "vblora", "c3a", "road", "fourierft", "unilora"]


def query(model):
    return model.base_model.model.roberta.encoder.layer[1].attention.self.query


@settings(deadline=None)
@given(st.integers(1, 5000))
def test_lokr_cuts_a_side_as_peft_does(size):
    assert nearest_to_square(size) == factorization(size, -1)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_blocks_on_a_diagonal_and_their_gradient_are_those_of_torch(factors, count, size, seed):
    torch.manual_seed(seed)
    blocks = torch.randn(factors, count, size, size, requires_grad=True)
    expected = torch.stack([torch.block_diag(*factor) for factor in blocks])
    gradient = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, blocks, gradient)
    assert torch.equal(BlockDiagonal.forward(blocks.detach())[0], expected)
    assert torch.equal(BlockDiagonal.backward(gradient, blocks)[0], wanted)


def test_boft_keeps_its_butterfly_factors_without_a_cuda_extension(adapter, backbone, randomise):
    model = adapter("boft").attach(backbone("roberta"), "SEQ_CLS")
    randomise(model)
    layer = query(model)
    rotation, _ = layer.get_delta_weight("default")
    assert layer.boft_R["default"].shape[0] == 2
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(24), rtol=1e-4, atol=1e-4)
    assert int((rotation.abs() > 1e-6).sum(1).min()) > layer.boft_R["default"].shape[-1]  # one factor mixes one block


@pytest.mark.parametrize("name", FITTED)
def test_no_setting_is_adjusted_behind_the_configuration(adapter, backbone, name):
    base = backbone("roberta")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = adapter(name).attach(base, "SEQ_CLS")
    assert [
        str(entry.message) for entry in caught if "djust" in str(entry.message) or "etting" in str(entry.message)
    ] == []
    fitted = adapter(name).fitted(base.geometry)
    config = model.peft_config["default"]
    assert {key: getattr(config, key) for key in adapter(name).derived} == {
        key: fitted[key] for key in adapter(name).derived
    }


@pytest.mark.parametrize(
    ("name", "sizes", "expected"),
    [
        ("oft", {}, {"oft_block_size": 8}),  # widths 24 and 32
        ("boft", {}, {"boft_block_size": 4}),
        ("vblora", {}, {"vector_length": 24}),
        ("c3a", {}, {"block_size": 4}),
        ("c3a", {"hidden_size": 768, "intermediate_size": 3072}, {"block_size": 128}),
        ("c3a", {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}, {"block_size": 128}),
        ("road", {}, {"group_size": 8}),
        ("fourierft", {}, {"n_frequency": 144, "scaling": 110 * 24 * 24 / 768**2}),
        ("fourierft", {"hidden_size": 1024, "intermediate_size": 4096}, {"n_frequency": 1000, "scaling": 110.0}),
        ("randlora", {}, {"randlora_alpha": 100}),
        ("unilora", {}, {"theta_d_length": 2 * 5 * 48 * 2 // 4}),
    ],
)
def test_a_setting_that_depends_on_the_width_follows_its_rule(adapter, backbone, name, sizes, expected):
    fitted = adapter(name).fitted(backbone("roberta", device="meta", **sizes).geometry)
    assert {key: fitted[key] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "rank", "family", "sentence"),
    [
        ("gralora", 5, "roberta", "each of its k x k blocks gets r / k of the rank, so k must divide r."),
        ("miss", 25, "roberta", "its rank exceeds the inputs of a matrix."),
        ("shira", 13, "roberta", "its smallest matrix has fewer entries than the rank asks for."),
        ("beft", 5, "llama", "it moves biases, and this architecture has none."),
    ],
)
def test_a_method_says_why_it_cannot_attach_and_peft_would_fail(adapter, backbone, name, rank, family, sentence):
    method, base = adapter(name, rank), backbone(family)
    assert method.unsupported(ModelContext(base.geometry)) == f"{name} cannot attach to {family}: {sentence}"
    with pytest.raises((ValueError, RuntimeError)):
        method.attach(base, "SEQ_CLS").merge_adapter()


def test_hra_refuses_an_odd_rank_at_which_peft_would_change_the_first_output(adapter, backbone, tokens):
    method, base = adapter("hra", 5), backbone("roberta")
    sentence = "its reflections start in pairs that cancel, so the rank must be even."
    assert method.unsupported(ModelContext(base.geometry)) == f"hra cannot attach to roberta: {sentence}"
    expected = base.model(tokens).logits.detach()
    with pytest.warns(UserWarning, match="symmetric initialization can NOT be performed"):
        model = method.attach(base, "SEQ_CLS").eval()
    assert float((model(tokens).logits - expected).detach().abs().max()) > 1e-2


def test_rslora_divides_by_the_root_of_the_rank(adapter, backbone):
    assert query(adapter("rslora", 4).attach(backbone("roberta"), "SEQ_CLS")).scaling["default"] == 16 / 2


def test_pissa_trains_the_largest_singular_values_and_freezes_the_rest(adapter, backbone):
    weight = query_weight(backbone("roberta"))
    layer = query(adapter("pissa", 4).attach(backbone("roberta"), "SEQ_CLS"))
    left, values, right = torch.linalg.svd(weight)
    largest = left[:, :4] * values[:4] @ right[:4]
    torch.testing.assert_close(layer.get_delta_weight("default"), largest, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.base_layer.weight, weight - largest, rtol=1e-4, atol=1e-5)


def query_weight(base):
    return base.model.roberta.encoder.layer[1].attention.self.query.weight.detach().clone()


def test_randlora_saves_its_diagonals_and_draws_the_bases_again(adapter, backbone, tokens, randomise, tmp_path):
    method = adapter("randlora", 4)
    model = method.attach(backbone("roberta"), "SEQ_CLS")
    randomise(model)
    method.save(model, tmp_path)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert sum(weight.numel() for weight in load_file(tmp_path / "adapter_model.safetensors").values()) == trained
    torch.manual_seed(99)
    again = method.load(backbone("roberta"), "SEQ_CLS", tmp_path)
    assert torch.equal(again.eval()(tokens).logits, model.eval()(tokens).logits)


def test_shira_trains_the_same_places_whatever_the_seed_of_the_run(adapter, backbone):
    places = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        places.append(query(adapter("shira", 2).attach(backbone("roberta"), "SEQ_CLS")).shira_indices["default"])
    assert torch.equal(*places)
    assert places[0].shape[1] == 2 * (24 + 24)


@pytest.mark.parametrize("family", FAMILIES)
def test_ln_tuning_trains_every_norm_and_nothing_else_of_the_backbone(adapter, backbone, family):
    base = backbone(family)
    norms = {
        path for path, module in base.model.named_modules() if type(module).__name__ in ("LayerNorm", "LlamaRMSNorm")
    }
    model = adapter("ln_tuning").attach(base, "SEQ_CLS").base_model.model
    trained = {path.split(".ln_tuning_layers")[0] for path, weight in model.named_parameters() if weight.requires_grad}
    assert {path for path in trained if path.split(".")[0] not in base.geometry.architecture.head} == norms


@pytest.mark.parametrize("family", ["roberta", "bert", "deberta"])
def test_a_prompted_encoder_is_read_at_the_first_token_of_its_text(adapter, backbone, tokens, family):
    model = adapter("prompt_tuning", num_virtual_tokens=5).attach(backbone(family), "SEQ_CLS").eval()
    seen = {}
    encoder = next(iter(model.get_base_model().children()))
    last = next(module for path, module in encoder.named_modules() if path.endswith("layer.1"))
    last.register_forward_hook(lambda _, __, out: seen.update(states=out[0] if isinstance(out, tuple) else out))
    pooling_layer(model.get_base_model()).register_forward_pre_hook(lambda _, args: seen.update(pooled=args[0]))
    model(tokens)
    assert seen["states"].shape[1] == 5 + tokens.shape[1]
    assert torch.equal(seen["pooled"], seen["states"][:, 5:])


@pytest.mark.parametrize("family", ["roberta", "bert"])
@pytest.mark.parametrize(("name", "before"), [("prompt_tuning", 5), ("prefix_tuning", 0)])
def test_the_text_behind_a_prompt_keeps_its_positions(adapter, backbone, tokens, name, before, family):
    base = backbone(family)
    plain = base.model.eval().get_submodule(f"{family}.embeddings")(input_ids=tokens)
    model = adapter(name, num_virtual_tokens=5).attach(base, "SEQ_CLS").eval()
    embeddings = model.get_base_model().get_submodule(f"{family}.embeddings")
    seen = []
    embeddings.register_forward_hook(lambda _, __, out: seen.append(out))
    model(tokens)
    assert_close(seen[0][:, before:], plain)


@pytest.mark.parametrize(("length", "remedy"), [(40, "data.max_length=7"), (45, "fewer virtual tokens")])
def test_a_prompt_that_leaves_no_positions_for_the_text_is_refused(adapter, backbone, length, remedy):
    base = backbone("roberta", max_position_embeddings=48)  # the first of which is the padding's
    model = adapter("prompt_tuning", num_virtual_tokens=length).attach(base, "SEQ_CLS").eval()
    ids = torch.full((1, 8), 5)
    with pytest.raises(ValueError, match=f"a row of 8 tokens and {length} virtual .* 47 positions: {remedy}"):
        model(ids)
    if length == 40:
        assert torch.isfinite(model(ids[:, :7]).logits).all()


def padded(row):
    """Return (ids, mask) of a row with three padding tokens behind it."""
    ids = torch.cat([row, torch.zeros(1, 3, dtype=torch.long)], dim=1)
    return ids, (torch.arange(ids.shape[1]) < row.shape[1]).long()[None]


@pytest.mark.parametrize(("name", "family"), [("prefix_tuning", "roberta"), ("prefix_tuning", "llama")])
@pytest.mark.parametrize("changes", [{}, {"num_virtual_tokens": 3}])
def test_padding_changes_nothing_behind_a_prefix(adapter, backbone, tokens, randomise, name, family, changes):
    model = adapter(name, **changes).attach(backbone(family, max_position_embeddings=48), "SEQ_CLS")
    randomise(model)
    ids, mask = padded(tokens[:1])
    expected = model.eval()(tokens[:1], attention_mask=torch.ones_like(tokens[:1])).logits
    torch.testing.assert_close(model(ids, attention_mask=mask).logits, expected)


def test_the_sentence_about_prompts_on_a_decoder_is_true(adapter, backbone, tokens):
    sentence = adapter("prompt_tuning").unsupported(ModelContext(backbone("llama").geometry))
    assert sentence == (
        "prompt_tuning cannot attach to llama: it classifies from the last token, and PEFT's prompts hide which one "
        "that is in a padded row."
    )
    model = peft.get_peft_model(
        backbone("llama").model, peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    ).eval()
    ids, mask = padded(tokens[:1])
    plain = model(tokens[:1], attention_mask=torch.ones_like(tokens[:1])).logits
    assert float((model(ids, attention_mask=mask).logits - plain).detach().abs().max()) > 1e-2


def test_a_prefix_is_attended_to_as_keys_and_values_before_the_texts_own(adapter, backbone, tokens, randomise):
    model = adapter("prefix_tuning", num_virtual_tokens=3).attach(backbone("roberta"), "SEQ_CLS").eval()
    randomise(model)
    attention = model.get_base_model().roberta.encoder.layer[1].attention.self
    seen = {}
    attention.register_forward_hook(
        lambda _, args, kwargs, out: seen.update(x=args[0] if args else kwargs["hidden_states"], out=out[0]),
        with_kwargs=True,
    )
    model(tokens)
    own = [heads(layer(seen["x"])) for layer in (attention.query, attention.key, attention.value)]
    prefix = model.get_prompt(batch_size=len(tokens)).layers[1]
    keys, values = torch.cat([prefix.keys, own[1]], dim=2), torch.cat([prefix.values, own[2]], dim=2)
    weights = torch.softmax(own[0] @ keys.transpose(2, 3) / 6**0.5, dim=-1)
    torch.testing.assert_close((weights @ values).transpose(1, 2).flatten(2), seen["out"], rtol=1e-4, atol=1e-5)


def heads(x):
    """Return (batch, 4 heads, tokens, 6) of (batch, tokens, 24)."""
    return x.unflatten(-1, (4, 6)).transpose(1, 2)
