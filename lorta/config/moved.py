"""Where code was that YAML files and records of before name: dotted paths that are still read."""

MOVED = {  # classes
    "lorta.harness.adapter.PeftAdapter": "lorta.api.peft_adapter.PeftAdapter",
}
MOVED_MODULES = {
    "baselines.adalora": "baselines.peft_methods.adalora",
    "baselines.adamss": "baselines.peft_methods.adamss",
    "baselines.boft": "baselines.peft_methods.boft",
    "baselines.cara": "baselines.tensor.cara",
    "baselines.deep_lora": "baselines.linear.deep_lora",
    "baselines.ether": "baselines.linear.ether",
    "baselines.extra_losses": "baselines.peft_methods.extra_losses",
    "baselines.fact": "baselines.tensor.fact",
    "baselines.frozen_spectrum": "baselines.linear.frozen_spectrum",
    "baselines.ia3": "baselines.peft_methods.ia3",
    "baselines.linear_tuner": "baselines.linear.tuner",
    "baselines.lokr": "baselines.peft_methods.lokr",
    "baselines.loldu": "baselines.linear.loldu",
    "baselines.lora_fa": "baselines.peft_methods.lora_fa",
    "baselines.lora_xs": "baselines.linear.lora_xs",
    "baselines.lotr": "baselines.tensor.lotr",
    "baselines.melora": "baselines.linear.melora",
    "baselines.metatt": "baselines.tensor.metatt",
    "baselines.nola": "baselines.linear.nola",
    "baselines.numbers_a_matrix": "baselines.linear.numbers_a_matrix",
    "baselines.preconditioned_lorta": "baselines.tensor.preconditioned_lorta",
    "baselines.prompt_tuning": "baselines.peft_methods.prompt_tuning",
    "baselines.singular_frames": "baselines.linear.singular_frames",
    "baselines.surm": "baselines.linear.surm",
    "baselines.svft": "baselines.linear.svft",
    "baselines.tenslora": "baselines.tensor.tenslora",
    "baselines.tensor_family": "baselines.tensor.family",
    "baselines.tensor_places": "baselines.tensor.places",
    "baselines.tinylora": "baselines.peft_methods.tinylora",
    "baselines.trainable_tokens": "baselines.peft_methods.trainable_tokens",
}


def present_path(dotted_path: str) -> str:
    """Return where `package.module.name` is now, itself where it never moved."""
    module, _, name = dotted_path.rpartition(".")
    moved = MOVED_MODULES.get(module)
    return MOVED.get(dotted_path, f"{moved}.{name}" if moved else dotted_path)
