"""SVFT: trained entries between all singular vectors of a weight."""

import math

import pytest
import torch
from peft import PeftModel

from baselines.linear.svft import BandedCore, SvftConfig
from lorta.geometry import ModelContext

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def matrix(outputs=7, inputs=5):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def core(weight, **fields):
    torch.manual_seed(1)
    made = BandedCore(weight, SvftConfig(**fields)).double()
    made.entries.data.normal_()
    made.gate.data.fill_(0.3)
    return made


@pytest.mark.parametrize("bandwidth", [1, 2, 3])
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
def test_the_update_is_a_gated_band_between_the_singular_vectors(shape, bandwidth):
    weight, x = matrix(*shape), torch.randn(2, 3, shape[1], dtype=torch.float64)
    made = core(weight, bandwidth=bandwidth)
    left, _, right = torch.linalg.svd(weight, full_matrices=False)
    band, rest = torch.zeros(len(right), len(right), dtype=torch.float64), made.entries.detach()
    for offset in [0, 1, -1, 2, -2][: 2 * bandwidth - 1]:
        for place in range(len(right) - abs(offset)):
            band[place - min(offset, 0), place + max(offset, 0)] = rest[place]
        rest = rest[len(right) - abs(offset) :]
    expected = left @ band @ right / (1 + math.exp(-0.3))
    assert not len(rest)
    torch.testing.assert_close(made.delta_weight().detach(), expected)
    torch.testing.assert_close(made(x).detach(), x @ expected.T)


def test_the_released_start_is_kaiming_normal_over_all_entries():
    made = BandedCore(torch.randn(200, 200), SvftConfig(bandwidth=3))
    assert made.entries.std().item() == pytest.approx(math.sqrt(2 / len(made.entries)), rel=0.1)
    assert made.gate.item() == 0.0


def test_the_plain_form_saves_no_frames_and_refuses_another_base_model(adapter, backbone, tokens, randomise, tmp_path):
    model = adapter("svft").attach(backbone("roberta"), "SEQ_CLS").eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    assert not [name for name in model.state_dict() if name.endswith(("left", "right"))]
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path)
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)
    with pytest.raises(ValueError, match="spectrum' of this checkpoint is not that of the base weight"):
        PeftModel.from_pretrained(backbone("roberta", initializer_range=0.2).model, tmp_path)


def test_a_band_beside_the_diagonal_is_saved_with_its_frames(adapter, backbone, tokens, randomise, tmp_path):
    """Another machine finds other signs for the same singular vectors, here made by hand."""
    model = adapter("svft", bandwidth=2).attach(backbone("roberta"), "SEQ_CLS").eval()
    randomise(model)
    for module in model.modules():
        if isinstance(module, BandedCore):
            module.left[:, 1].neg_()
            module.right[1].neg_()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path)
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(
    ("bandwidth", "sizes", "expected"),
    [
        (1, BASE, 55_368),  # the paper's 0.06M on DeBERTaV3-base, whose matrices have these sizes
        (3, BASE, 276_120),  # 0.28M at d = 2
        (1, LARGE, 147_600),
    ],
)
def test_the_count_is_the_papers(adapter, backbone, bandwidth, sizes, expected):
    base = backbone("roberta", device="meta", **sizes)
    assert adapter("svft", bandwidth=bandwidth).parameters(base.geometry) == expected


@pytest.mark.parametrize("bandwidth", [1, 3])
def test_a_built_model_has_the_count(adapter, backbone, bandwidth):
    base, method = backbone("llama"), adapter("svft", bandwidth=bandwidth)
    model = method.attach(base, "SEQ_CLS")
    trained = sum(weight.numel() for path, weight in model.named_parameters() if "svft_" in path)
    assert trained == method.parameters(base.geometry) > 0


def test_a_band_wider_than_the_matrix_is_refused(adapter, backbone):
    assert adapter("svft", bandwidth=25).unsupported(ModelContext(backbone("roberta").geometry)) == (
        "svft cannot attach to roberta: its band is wider than the smaller side of a matrix."
    )
    with pytest.raises(ValueError, match="bandwidth 6 must be at most 5"):
        core(matrix(), bandwidth=6)
