"""QuanTA: circuits of small matrices on pairs of axes."""

import math
from itertools import combinations

import pytest
import torch
from peft import PeftModel

from baselines.quanta.axes import axes_of, entries
from baselines.quanta.tuner import Circuit, QuantaConfig
from lorta.geometry import ModelContext

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
SEVEN_BILLION = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "head_dim": 128}
SEVEN_BILLION |= {"num_key_value_heads": 32, "intermediate_size": 11008}


def circuit(outputs, inputs, axes=3):
    torch.manual_seed(0)
    made = Circuit(torch.empty(outputs, inputs), QuantaConfig(axes=axes)).double()
    for gate in made.gates:
        gate.data.normal_()
    return made


def dense(gates, axes):
    """T as a product of matrices of full width: each a Kronecker product whose first axes are those of its pair."""
    size, pairs = math.prod(axes), list(combinations(range(len(axes)), 2))[::-1]
    product = torch.eye(size, dtype=torch.float64)
    for pair, gate in zip(pairs, gates, strict=True):
        rest = [axis for axis in range(len(axes)) if axis not in pair]
        moved = torch.arange(size).view(axes).permute(*pair, *rest).flatten()
        matrix = torch.zeros(size, size, dtype=torch.float64)
        matrix[moved[:, None], moved] = torch.kron(gate.detach(), torch.eye(size // len(gate), dtype=torch.float64))
        product = matrix @ product
    return product


@pytest.mark.parametrize(("outputs", "inputs", "axes"), [(24, 24, 3), (24, 16, 2), (16, 24, 3), (36, 36, 4)])
def test_the_update_is_the_circuit_minus_its_start(outputs, inputs, axes):
    made, x = circuit(outputs, inputs, axes), torch.randn(2, 3, inputs, dtype=torch.float64)
    start = [made.get_buffer(f"start_{number}") for number in range(len(made.gates))]
    whole = dense(list(made.gates), made.axes) - dense(start, made.axes)
    expected = whole[:outputs, :inputs]
    torch.testing.assert_close(made.delta_weight().detach(), expected)
    torch.testing.assert_close(made(x).detach(), x @ expected.T)


def test_the_update_has_full_rank():
    assert torch.linalg.matrix_rank(circuit(24, 24).delta_weight()) == 24


def test_a_checkpoint_carries_the_start(adapter, backbone, tokens, randomise, tmp_path):
    torch.manual_seed(0)
    model = adapter("quanta").attach(backbone("roberta"), "SEQ_CLS").eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    torch.manual_seed(1)
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path)
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(
    ("family", "sizes", "axes", "chosen", "expected"),
    [
        ("llama", SEVEN_BILLION, 4, None, 2_752_512),  # 43,008 a matrix, the released axes
        ("roberta", BASE, 3, None, 540_672),
        ("roberta", BASE, 4, {"768": [8, 8, 4, 3]}, 178_560),
        ("roberta", BASE, 5, None, 50_688),
        ("roberta", BASE, 9, None, 17_664),
    ],
)
def test_the_count_is_the_papers_or_the_formulas(adapter, backbone, family, sizes, axes, chosen, expected):
    base = backbone(family, device="meta", **sizes | {"num_hidden_layers": 1})
    layers = sizes["num_hidden_layers"]
    method = adapter("quanta", axes=axes, sizes=chosen)
    trained = [weight for path, weight in method.attach(base, "SEQ_CLS").named_parameters() if "quanta_" in path]
    assert method.parameters(base.geometry) * layers == expected
    assert sum(weight.numel() for weight in trained) * layers == expected


def test_axes_are_those_of_the_fewest_numbers_and_a_width_without_so_many_is_refused(adapter, backbone):
    assert axes_of(768, 3) == (12, 8, 8)
    assert entries((12, 8, 8)) < entries((16, 8, 6))
    assert adapter("quanta", axes=5).unsupported(ModelContext(backbone("roberta").geometry)) == (
        "quanta cannot attach: QuanTA cannot read 24 features as 5 axes: choose fewer."
    )
    with pytest.raises(ValueError, match=r"sizes\['24'\] must be axes that multiply to 24, got \[5, 5\]"):
        QuantaConfig(sizes={"24": [5, 5]})
