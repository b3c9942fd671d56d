"""AdaMSS's adaptive form: a schedule in shares of a run, and clusters that are frozen by importance while it trains.

Source: PEFT 0.21.2, `peft/tuners/adamss`. PEFT's own callback counts in steps, and a run that goes on from a checkpoint
would train all clusters again.
"""

from collections.abc import Mapping
from typing import Any

from peft.tuners.adamss.layer import AdamssLayer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SCHEDULE = ("init_warmup", "final_warmup", "mask_interval")
UNITS = 1000  # of a run
SCORES = ("exp_avg_ipt_A", "exp_avg_ipt_B", "exp_avg_unc_A", "exp_avg_unc_B")  # of PEFT's layers: adapter -> clusters


class AdaptiveSubspaces(TrainerCallback):
    """Scores the clusters after every optimizer step and freezes the less important ones by the schedule."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Turn the schedule's shares into steps. Raises ValueError for a run too short to freeze anything in."""
        for name, steps in schedule_in_steps(self.config, state.max_steps).items():
            setattr(kwargs["model"].active_peft_config, name, steps)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score and freeze; gradients are still there, and the step is not yet counted.

        Where all scores are equal, as in a step whose learning rate is 0, PEFT freezes every cluster; we freeze none.
        """
        before = [cluster for cluster in _clusters(kwargs["model"]) if cluster.requires_grad]
        kwargs["model"].base_model.update_and_allocate(state.global_step + 1)
        if not any(cluster.requires_grad for cluster in before):
            for cluster in before:
                cluster.requires_grad_(True)

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return the scores and which weights are frozen, for a checkpoint."""
        scores = [{name: dict(getattr(layer, name)) for name in SCORES} for layer in _layers(model)]
        trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
        return {"scores": scores, "trained": trained}

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint."""
        for layer, scores in zip(_layers(model), state["scores"], strict=True):
            device = layer.get_base_layer().weight.device
            for name in SCORES:
                moved = {
                    adapter: [score if score is None else score.to(device) for score in clusters]
                    for adapter, clusters in scores[name].items()
                }
                getattr(layer, name).update(moved)
        for name, weight in model.named_parameters():
            weight.requires_grad_(name in state["trained"])


def _layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, AdamssLayer)]


def _clusters(model: Any) -> list[Any]:
    return [weight for name, weight in model.named_parameters() if "adamss_" in name]


def schedule_in_steps(config: Mapping[str, Any], max_steps: int) -> dict[str, int]:
    """Return the schedule in optimizer steps of a run of `max_steps`: freezing ends with the run at the latest."""
    if max_steps < 2:
        raise ValueError(
            f"AdaMSS needs at least 2 optimizer steps to freeze clusters in, got {max_steps}: train longer."
        )
    start, end, interval = (round(config[name] * max_steps / UNITS) for name in SCHEDULE)
    return {
        "init_warmup": min(start, max_steps - 1),
        "final_warmup": max(min(end, max_steps), min(start, max_steps - 1) + 1),
        "mask_interval": max(1, interval),
    }
