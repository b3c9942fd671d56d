"""AdaLoRA's budget: a PEFT config in shares of a run, and the callback that prunes while `transformers.Trainer` trains.

Source: Zhang et al. 2023, arXiv:2303.10512; PEFT 0.21.2, `peft/tuners/adalora`. PEFT leaves the call of
`update_and_allocate` to the training loop, and Trainer never makes it.
"""

import math
from collections.abc import Mapping
from typing import Any

from peft import AdaLoraConfig
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of PEFT's RankAllocator


def adalora_config(target_r: int, initial_factor: float, **settings: Any) -> AdaLoraConfig:
    """Return a config that starts at ceil(initial_factor * target_r) triplets a matrix and ends at target_r on average.

    `tinit`, `tfinal` and `deltaT` count in units of `total_step`: with 1000 they are thousandths of a run, which
    `AdaloraBudget` turns into steps once the run's length is known. Raises ValueError when there is nothing to prune.
    """
    initial = math.ceil(initial_factor * target_r)
    if initial <= target_r:
        raise ValueError(
            f"AdaLoRA must start above its target rank {target_r}, got initial_factor {initial_factor}: use 1.5."
        )
    return AdaLoraConfig(target_r=target_r, init_r=initial, **settings)


class AdaloraBudget(TrainerCallback):
    """Prunes AdaLoRA's singular triplets by its schedule, after every optimizer step.

    Trainer must pass labels to the model: PEFT adds the orthogonality term to the model's own loss. Gradients are
    clipped by then, so `max_grad_norm` changes which triplets go.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Turn the schedule's shares into steps. Raises ValueError for a run too short to prune in."""
        model = kwargs["model"]
        schedule = model.peft_config[model.active_adapter]
        for name, steps in schedule_in_steps(self.config, state.max_steps).items():
            setattr(schedule, name, steps)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score the triplets and apply the budget; gradients are still there, and the step is not yet counted."""
        kwargs["model"].base_model.update_and_allocate(state.global_step + 1)

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return the running scores of the triplets and the pattern of the last cut, for a checkpoint."""
        allocator = model.base_model.rankallocator
        scores = {name: dict(getattr(allocator, name)) for name in SCORES}
        return {"scores": scores, "rank_pattern": model.peft_config[model.active_adapter].rank_pattern}

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint."""
        weights = dict(model.get_base_model().named_parameters())
        for name, scores in state["scores"].items():
            moved = {path: score.to(weights[path].device) for path, score in scores.items()}
            setattr(model.base_model.rankallocator, name, moved)
        model.peft_config[model.active_adapter].rank_pattern = state["rank_pattern"]


def schedule_in_steps(config: Mapping[str, Any], max_steps: int) -> dict[str, int]:
    """Return tinit, tfinal, deltaT and total_step in optimizer steps of a run of `max_steps`.

    At least one step comes before the last cut, because PEFT scores the triplets in that step.
    """
    if max_steps < 2:
        raise ValueError(f"AdaLoRA needs at least 2 optimizer steps to prune in, got {max_steps}: train longer.")
    scale = max_steps / config["total_step"]
    final = min(round(config["tfinal"] * scale), max_steps - 2)
    start = min(round(config["tinit"] * scale), max_steps - final - 1)
    return {
        "tinit": start,
        "tfinal": final,
        "deltaT": max(1, round(config["deltaT"] * scale)),
        "total_step": max_steps,
    }


def freeze_rank_numbers(model: nn.Module) -> None:
    """Freeze the divisors of AdaLoRA's scaling, which PEFT 0.21.2 leaves trainable on bf16 and meta models.

    To be called before an optimizer collects what is trainable.
    """
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)


def match_ranks_to_weights(model: Any) -> None:
    """Rewrite the rank pattern, by which PEFT cuts what it saves, from the weights as they are.

    PEFT keeps the pattern of the last cut. When an earlier epoch's weights were restored since, that pattern would drop
    triplets which the model still has. Without any cut there is no pattern, and all triplets are saved.
    """
    config = model.peft_config[model.active_adapter]
    if not config.rank_pattern:
        return
    named = model.get_base_model().named_parameters()
    config.rank_pattern = {path: (weight != 0).flatten().tolist() for path, weight in named if ".lora_E." in path}
