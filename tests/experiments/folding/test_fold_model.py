"""ESMFold with its graph kept: the same numbers as transformers', gradients for every adapter, no trace of padding."""

import pytest
import torch
from torch.testing import assert_close
from transformers import EsmForProteinFolding

from experiments.folding.batches import collate
from experiments.folding.target import Target
from lorta.embedded.folds import fold_rows
from lorta.training.metering import count_parameters
from tests.experiments.folding.esmfold import adapter, batch, loss, task_and_backbone

STEPS = 3  # LoRA's A gets a gradient once B has moved
PROJECTIONS = "adapter.projections=[q,k,v,o]"  # the trunk has q, k and v in one module
OUTPUTS = ("frames", "angles", "positions", "distogram_logits", "lddt_head", "plddt")

pytestmark = pytest.mark.usefixtures("one_thread")


@torch.no_grad()
def test_the_outputs_are_those_of_transformers():
    model, rows = task_and_backbone()[1].model.eval(), batch()
    inputs = {"input_ids": rows["input_ids"], "attention_mask": rows["attention_mask"], "num_recycles": 1}
    expected = EsmForProteinFolding.forward(model, **inputs)
    found = model(**inputs)
    for name in OUTPUTS:
        assert_close(found[name], expected[name], msg=name)


def test_transformers_cuts_the_graph_that_is_kept_here():
    model, rows = task_and_backbone()[1].model, batch(1)
    weight = model.esm.encoder.layer[0].attention.self.query.weight.requires_grad_(True)
    inputs = {"input_ids": rows["input_ids"], "num_recycles": 0}
    assert not EsmForProteinFolding.forward(model, **inputs).positions.requires_grad
    model(**inputs).positions.square().sum().backward()
    assert weight.grad.abs().max() > 0


@pytest.mark.parametrize("adapted", ["language_model", "trunk"])
@pytest.mark.parametrize("name", ["lora", "lorta"])
def test_every_adapter_weight_gets_a_gradient_and_nothing_else_does(name, adapted):
    torch.manual_seed(0)
    _, backbone = task_and_backbone(f"task.adapted={adapted}")
    model = adapter(f"adapter={name}", "rank=4", PROJECTIONS).attach(backbone, "FEATURE_EXTRACTION").train()
    trained = {path: weight for path, weight in model.named_parameters() if weight.requires_grad}
    optimizer, largest, rows = torch.optim.AdamW(trained.values(), lr=1e-2), dict.fromkeys(trained, 0.0), batch(2)
    for _ in range(STEPS):
        loss(model, rows).backward()
        for path, weight in trained.items():
            largest[path] = max(largest[path], weight.grad.abs().max().item())
        optimizer.step()
        optimizer.zero_grad()
    assert [path for path, gradient in largest.items() if gradient == 0.0] == []
    assert count_parameters(model, backbone.geometry.architecture).head == 0


@pytest.mark.parametrize("adapted", ["language_model", "trunk"])
@pytest.mark.parametrize("name", ["lora", "lorta"])
def test_the_count_is_the_closed_form_s(name, adapted):
    _, backbone = task_and_backbone(f"task.adapted={adapted}")
    method = adapter(f"adapter={name}", "rank=4", PROJECTIONS)
    expected = method.parameters(backbone.geometry)
    model = method.attach(backbone, "FEATURE_EXTRACTION")
    assert count_parameters(model, backbone.geometry.architecture).adapter == expected


def test_a_saved_adapter_folds_as_it_did(tmp_path):
    torch.manual_seed(0)
    method, rows = adapter("adapter=lorta", "rank=4"), batch(1)
    model = method.attach(task_and_backbone()[1], "FEATURE_EXTRACTION")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
        before = model.eval()(input_ids=rows["input_ids"], num_recycles=0).positions
        method.save(model, tmp_path)
        loaded = method.load(task_and_backbone()[1], "FEATURE_EXTRACTION", tmp_path).eval()
        untouched = task_and_backbone()[1].model.eval()(input_ids=rows["input_ids"], num_recycles=0).positions
        after = loaded(input_ids=rows["input_ids"], num_recycles=0).positions
    assert_close(after, before)
    assert (before - untouched).abs().max() > 0.01


def test_a_trained_trunk_is_counted_as_head_and_learns_beside_the_adapter():
    _, backbone = task_and_backbone("task.trunk=trained")
    model = adapter("adapter=lora", "rank=1").attach(backbone, "FEATURE_EXTRACTION")
    counted = count_parameters(model, backbone.geometry.architecture)
    heads = [getattr(backbone.model, name) for name in backbone.geometry.architecture.head]
    loss(model, batch(1)).backward()
    silent = [path for path, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert counted.other_trainable == 0
    assert counted.head == sum(w.numel() for head in heads for w in head.parameters() if w.requires_grad) > 100_000
    assert silent == []


@torch.no_grad()
def test_padding_does_not_change_a_chain_s_fold():
    model = task_and_backbone()[1].model.eval()
    targets = sorted((Target(*row) for row in fold_rows("validation")), key=lambda target: len(target.sequence))
    alone, together = collate(targets[:1]), collate([targets[0], targets[-1]])
    length = alone["input_ids"].shape[1]
    assert together["input_ids"].shape[1] > length
    found, expected = (model(rows["input_ids"], rows["attention_mask"], num_recycles=1) for rows in (together, alone))
    assert_close(found.positions[:, :1, :length], expected.positions, atol=1e-3, rtol=1e-4)
    assert_close(found.plddt[:1, :length], expected.plddt, atol=1e-4, rtol=1e-4)


def test_checkpoints_change_neither_loss_nor_gradients():
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        _, backbone = task_and_backbone()
        if checkpointing:
            backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
        model = adapter("adapter=lora", "rank=2").attach(backbone, "FEATURE_EXTRACTION").train()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, kept=kept: kept.append(1) or tensor, lambda t: t):
            value = loss(model, batch(2))
        value.backward()
        gradients = [weight.grad for weight in model.parameters() if weight.requires_grad]
        found.append((value.detach(), gradients, len(kept)))
    (plain, gradients, tensors), (recomputed, others, fewer) = found
    assert_close(recomputed, plain)
    assert_close(others, gradients, atol=1e-4, rtol=1e-3)
    assert fewer < tensors


def test_chunks_of_the_trunk_change_neither_fold_nor_gradients():
    found = []
    for size in (None, 4):
        torch.manual_seed(0)
        _, backbone = task_and_backbone()
        backbone.model.trunk.set_chunk_size(size)
        model = adapter("adapter=lora", "rank=2").attach(backbone, "FEATURE_EXTRACTION").train()
        value = loss(model, batch(1))
        value.backward()
        found.append((value.detach(), [weight.grad for weight in model.parameters() if weight.requires_grad]))
    assert_close(found[1], found[0], atol=1e-4, rtol=1e-3)


def test_bf16_is_the_language_model_s_alone_and_its_adapter_still_learns():
    _, backbone = task_and_backbone("model.dtype=bf16")
    assert {weight.dtype for weight in backbone.model.esm.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in backbone.model.trunk.parameters()} == {torch.float32}
    model = adapter("adapter=lorta", "rank=2").attach(backbone, "FEATURE_EXTRACTION")
    loss(model, batch(1)).backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert {weight.dtype for weight in trained} == {torch.float32}
    assert max(weight.grad.abs().max().item() for weight in trained) > 0
