"""AdaLoRA's budget inside a real `transformers.Trainer`."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_backbones import build_backbone
from transformers import Trainer, TrainerCallback, TrainingArguments

from baselines.peft_methods.adalora import AdaloraBudget, adalora_config, freeze_rank_numbers, schedule_in_steps
from lorta.api.peft_adapter import PeftAdapter

STEPS = 25
MATRICES = 2 * 6  # layers times adapted matrices
AXES = {".lora_E": 0, ".lora_A": 0, ".lora_B": 1}  # where the rank stands


def surviving(model):
    """Return the number of singular triplets that are not zero."""
    values = [weight for path, weight in model.named_parameters() if ".lora_E." in path]
    return int(sum((value != 0).sum() for value in values))


def saved_triplets(folder):
    """Return the number of triplets in a saved file, which must agree between E, A and B."""
    weights = load_file(folder / "adapter_model.safetensors")
    ranks = [
        {path: value.shape[axis] for path, value in weights.items() if kind in path} for kind, axis in AXES.items()
    ]
    sums = {sum(found.values()) for found in ranks}
    assert len(sums) == 1
    return sums.pop()


class Watch(TrainerCallback):
    def __init__(self):
        self.survivors = []

    def on_step_end(self, args, state, control, **kwargs):
        self.survivors.append(surviving(kwargs["model"]))


def train(method, base, folder, *callbacks, **arguments):
    """Train for STEPS steps of the harness's own pieces; return (model, survivors after every step, trainer)."""
    model = method.attach(base, "SEQ_CLS")
    generator = torch.Generator().manual_seed(3)
    rows = [{"input_ids": torch.randint(3, 48, (7,), generator=generator), "labels": i % 2} for i in range(32)]
    settings = {"max_steps": STEPS, "learning_rate": 1e-2, "per_device_train_batch_size": 8} | arguments
    watch = Watch()
    trainer = Trainer(
        model,
        TrainingArguments(str(folder), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **settings),
        train_dataset=rows,
        callbacks=[*method.callbacks(), watch, *callbacks],
    )
    trainer.train()
    return model, watch.survivors, trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return (adapter, model, survivors) of one run at target rank 2, which starts at 3."""
    node = {
        "_target_": "baselines.peft_methods.adalora.adalora_config",
        "target_r": 2,
        "initial_factor": 1.5,
        "lora_alpha": 32.0,
    }
    node |= {"total_step": 1000, "tinit": 120, "tfinal": 500, "deltaT": 1, "orth_reg_weight": 0.1}
    projections = ["q", "k", "v", "o", "up", "down"]
    hooks = {
        "callback": "baselines.peft_methods.adalora.AdaloraBudget",
        "before_save": "baselines.peft_methods.adalora.match_ranks_to_weights",
    }
    method = PeftAdapter("adalora", node, projections, {}, 1e-2, 1e-2, **hooks)
    model, survivors, _ = train(method, build_backbone("roberta"), tmp_path_factory.mktemp("run"))
    return method, model, survivors


def test_triplets_are_pruned_on_the_cubic_schedule(trained):
    _, _, survivors = trained
    first, last = 3, STEPS - 12  # 12 % and 50 % of 25 steps
    for step, count in enumerate(survivors, start=1):
        if step <= first:
            assert count == 3 * MATRICES
        elif step < last:
            expected = int(MATRICES * (1 - (step - first) / (last - first)) ** 3) + 2 * MATRICES
            assert count == expected, f"step {step}"
        else:
            assert count == 2 * MATRICES, f"step {step}"


def test_the_rank_that_scales_the_update_stays_the_first_one(trained):
    _, model, _ = trained
    numbers = [weight for path, weight in model.named_parameters() if ".ranknum." in path]
    assert len(numbers) == MATRICES
    assert {float(number) for number in numbers} == {3.0}
    assert not any(number.requires_grad for number in numbers)


def test_a_pruned_model_is_saved_small_and_loads_again(trained, backbone, tokens, tmp_path):
    method, model, _ = trained
    expected = model.eval()(tokens).logits
    method.save(model, tmp_path)
    again = method.load(backbone("roberta"), "SEQ_CLS", tmp_path)
    assert saved_triplets(tmp_path) == surviving(model) == 2 * MATRICES
    torch.testing.assert_close(again.eval()(tokens).logits, expected)
    assert sum(weight.shape[0] for path, weight in again.named_parameters() if ".lora_E." in path) == 2 * MATRICES


class Keep(TrainerCallback):
    """Keeps the weights as they are after one step, as the choice of the best epoch does."""

    def __init__(self, step):
        self.step, self.weights = step, {}

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            trained = {path: weight for path, weight in kwargs["model"].named_parameters() if weight.requires_grad}
            self.weights = {path: weight.detach().clone() for path, weight in trained.items()}


@pytest.mark.parametrize(("step", "triplets"), [(2, 3 * MATRICES), (STEPS, 2 * MATRICES)])
def test_weights_restored_from_an_earlier_step_are_saved_whole(adapter, backbone, tokens, tmp_path, step, triplets):
    keep = Keep(step)
    method = adapter("adalora", rank=2)
    model, _, _ = train(method, backbone("roberta"), tmp_path / "run", keep)
    model.load_state_dict(keep.weights, strict=False)
    expected = model.eval()(tokens).logits
    method.save(model, tmp_path)
    again = method.load(backbone("roberta"), "SEQ_CLS", tmp_path)
    torch.testing.assert_close(again.eval()(tokens).logits, expected)
    assert saved_triplets(tmp_path) == triplets


def test_a_matrix_that_lost_every_triplet_is_saved_empty_and_loads(trained, backbone, tokens, tmp_path):
    method = trained[0]
    model, _, _ = train(method, build_backbone("roberta"), tmp_path / "run")
    first = next(weight for path, weight in model.named_parameters() if ".lora_E." in path)
    before = surviving(model)
    lost = int((first != 0).sum())
    first.data.zero_()
    expected = model.eval()(tokens).logits
    method.save(model, tmp_path)
    assert saved_triplets(tmp_path) == before - lost
    again = method.load(backbone("roberta"), "SEQ_CLS", tmp_path)
    torch.testing.assert_close(again.eval()(tokens).logits, expected)


def test_an_adapter_that_was_never_cut_is_saved_with_all_its_triplets(adapter, backbone, tmp_path):
    method = adapter("adalora", rank=2)
    method.save(method.attach(backbone("roberta"), "SEQ_CLS"), tmp_path)
    assert saved_triplets(tmp_path) == 3 * MATRICES


def test_the_rank_number_is_kept_from_the_optimizer_under_a_bf16_model(adapter, backbone, tmp_path):
    method = adapter("adalora", rank=2)
    model, survivors, trainer = train(method, backbone("roberta", dtype=torch.bfloat16), tmp_path, max_steps=4)
    assert survivors[-1] == 2 * MATRICES
    optimized = {id(weight) for group in trainer.optimizer.param_groups for weight in group["params"]}
    numbers = [weight for path, weight in model.named_parameters() if ".ranknum." in path]
    assert {float(number) for number in numbers} == {3.0}
    assert not any(number.requires_grad or id(number) in optimized for number in numbers)


def test_freezing_takes_the_rank_numbers_alone(adapter, backbone):
    model = adapter("adalora", rank=2).attach(backbone("roberta", dtype=torch.bfloat16), "SEQ_CLS")
    for path, weight in model.named_parameters():  # PEFT frees them on bf16 models
        weight.requires_grad_(weight.requires_grad or "ranknum" in path)
    freeze_rank_numbers(model)
    trained = {path for path, weight in model.named_parameters() if weight.requires_grad}
    assert not [path for path in trained if "ranknum" in path]
    assert [path for path in trained if "lora_E" in path]


def test_the_loss_contains_the_orthogonality_term_when_labels_are_passed(adapter, backbone, tokens):
    labels = torch.tensor([0, 1, 0])
    losses = []
    for weight in (0.0, 0.1):
        torch.manual_seed(0)
        model = adapter("adalora", rank=2, orth_reg_weight=weight).attach(backbone("roberta"), "SEQ_CLS")
        losses.append(model.eval()(tokens, labels=labels).loss)
    tensors = [weight for path, weight in model.named_parameters() if ".lora_A." in path or ".lora_B." in path]
    grams = [weight @ weight.T if weight.shape[0] == 3 else weight.T @ weight for weight in tensors]
    expected = 0.1 * sum((gram - torch.eye(3)).norm() for gram in grams) / len(grams)
    torch.testing.assert_close(losses[1] - losses[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("max_steps", [2, 3, 4, 10, 999, 100_000])
def test_the_schedule_scales_with_the_run_and_always_leaves_a_step_to_prune(max_steps):
    shares = {"total_step": 1000, "tinit": 120, "tfinal": 500, "deltaT": 1}
    schedule = schedule_in_steps(shares, max_steps)
    last_cut = schedule["total_step"] - schedule["tfinal"]
    assert schedule["total_step"] == max_steps
    assert 0 <= schedule["tinit"] < last_cut
    assert last_cut >= 2
    if max_steps >= 999:
        assert schedule["tinit"] == round(0.12 * max_steps)
        assert schedule["deltaT"] == max(1, max_steps // 1000)


def test_a_run_of_one_step_is_refused():
    shares = {"total_step": 1000, "tinit": 120, "tfinal": 500, "deltaT": 1}
    with pytest.raises(ValueError, match="at least 2 optimizer steps to prune in, got 1"):
        schedule_in_steps(shares, 1)


@pytest.mark.parametrize(("target", "initial"), [(1, 2), (2, 3), (3, 5), (8, 12)])
def test_the_first_rank_is_half_as_much_again_rounded_up(target, initial):
    assert adalora_config(target_r=target, initial_factor=1.5, total_step=1000).init_r == initial


def test_a_budget_with_nothing_to_prune_is_refused():
    with pytest.raises(ValueError, match=r"must start above its target rank 8, got initial_factor 1\.0"):
        adalora_config(target_r=8, initial_factor=1.0, total_step=1000)


def test_the_callback_is_built_from_the_configuration_alone(adapter):
    (callback,) = adapter("adalora", rank=2).callbacks()
    assert isinstance(callback, AdaloraBudget)
    assert callback is not adapter("adalora", rank=2).callbacks()[0]  # a run's own: it holds the run's schedule
