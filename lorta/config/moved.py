"""Where classes were that YAML files and records of before name: `_target_` paths that are still read."""

MOVED = {
    "lorta.harness.adapter.PeftAdapter": "lorta.api.peft_adapter.PeftAdapter",
}
