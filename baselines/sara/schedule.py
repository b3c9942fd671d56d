"""SaRA's part between training steps: the nuclear norm's gradient, and the second selection."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from baselines.sara.tuner import SaraConfig, sara_layers

ENTRIES = ("sara_indices", "sara_frozen_indices", "sara_frozen_values")


class SaraSchedule(TrainerCallback):
    """Adds the nuclear norm's gradient to every optimizer step, after clipping, and selects anew half-way."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.switch_step: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Turn the share of the run into steps."""
        share = self.config.get("switch_at", SaraConfig.switch_at)
        self.switch_step = None if share is None else max(1, round(share * state.max_steps))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add lambda U V^T of some matrices (torch's generator draws them: the run's seed) to their gradients."""
        weight = self.config.get("rank_weight", SaraConfig.rank_weight)
        layers = sara_layers(kwargs["model"])
        most = self.config.get("rank_matrices", SaraConfig.rank_matrices)
        if weight == 0:
            return
        for position in torch.randperm(len(layers)).tolist()[:most]:
            layer, adapter = layers[position]
            values = layer.sara_values[adapter]
            if values.grad is not None:
                values.grad += weight * layer.rank_gradient(adapter).to(values.grad)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """At the switch, put the smaller vectors into the optimizer's groups and forget or cut their state."""
        if state.global_step != self.switch_step:
            return
        optimizer, settings = kwargs["optimizer"], kwargs["model"].peft_config
        for layer, adapter in sara_layers(kwargs["model"]):
            old = layer.sara_values[adapter]
            kept = layer.select_again(adapter, settings[adapter].threshold)
            new = layer.sara_values[adapter]
            for group in optimizer.param_groups:
                group["params"] = [new if entry is old else entry for entry in group["params"]]
            moments = optimizer.state.pop(old, {})
            if settings[adapter].keep_state:
                optimizer.state[new] = {k: v[kept] if v.shape == old.shape else v for k, v in moments.items()}

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return which entries train and what the frozen ones hold, for a checkpoint."""
        return {
            "entries": [[getattr(layer, name)[adapter] for name in ENTRIES] for layer, adapter in sara_layers(model)]
        }

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint, whose trained values are in the model already."""
        for (layer, adapter), saved in zip(sara_layers(model), state["entries"], strict=True):
            for name, entry in zip(ENTRIES, saved, strict=True):
                getattr(layer, name)[adapter] = entry.to(layer.weight.device)
