"""What many adapters cost: counted right, and the committed table is made of the committed rows."""

from itertools import pairwise

import pytest
import torch
from peft import LoraConfig
from transformers import BertConfig, BertModel

from benchmarks.together import many_adapters
from benchmarks.together.many_adapters import clock_of, measure_swapping
from benchmarks.together.swapping_table import swapping_page
from lorta.config.places import CONF

COSTS = CONF.parent / "results" / "costs"


def tiny_model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    return BertModel(BertConfig(vocab_size=20, **sizes))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    config = LoraConfig(r=2, target_modules=["query", "value"])
    return (*measure_swapping(tiny_model, config, (1, 3), "cpu", folder), folder)


def test_counts_are_those_of_one_adapter(found):
    counts, _, folder = found
    assert counts["parameters"] == 2 * 2 * 2 * (8 + 8)
    assert counts["adapter_bytes"] == (folder / "0" / "adapter_model.safetensors").stat().st_size
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "2"]


def test_each_size_has_costs_and_loading_adds_up(found):
    _, (one, three), _ = found
    assert (one.adapters, three.adapters) == (1, 3)
    assert 0.0 < one.load_s < three.load_s
    assert one.swap_s > 0.0 and one.copy_s is three.copy_s is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies are to a CUDA device, and there is none")
def test_copies_to_a_gpu_are_measured(tmp_path):
    _, (cost,) = measure_swapping(tiny_model, LoraConfig(r=2, target_modules=["query"]), (2,), "cuda", tmp_path)
    assert cost.copy_s is not None and cost.copy_s > 0.0


def test_swaps_go_from_one_adapter_to_another(found, monkeypatch):
    named: list[str] = []

    class Model:
        def set_adapter(self, name, inference_mode):
            named.append(name)

    many_adapters._swap(Model(), 10, clock_of("cpu")[1])
    assert all(first != second for first, second in pairwise(named))
    assert set(named) <= {str(number) for number in range(10)}


def test_the_committed_table_is_made_of_the_committed_rows():
    assert swapping_page(COSTS / "swapping.csv") == (COSTS / "swapping.md").read_text(encoding="utf-8")


def test_runs_of_one_kind_share_a_line_with_their_median(tmp_path):
    file = tmp_path / "swapping.csv"
    header = "method,rank,device,clock,parameters,adapter_bytes,adapters,load_ms,last_load_ms,swap_ms,copy_ms"
    rows = [f"lora,4,cpu,processor,1000,4000,10,{load},1.0,2.0," for load in (10.0, 30.0, 14.0)]
    file.write_text("\n".join([header, *rows, "lora,4,cpu,processor,1000,4000,100,99.0,1.0,2.0,"]))
    lines = swapping_page(file).splitlines()
    assert "| lora | cpu | processor | 4 | 1,000 | 4,000 | 10 | 3 | 14.0 | 1.0 | 2.0 |" in lines
    assert not any("copy all" in line for line in lines)
    assert "| LoRTA | 4 | 0.12 ± 0.03 | 1.06 ± 0.01 | 5.5 ± 0.2 |" in lines
