"""Where classes were that YAML files and records of before name: `_target_` paths that are still read.

Methods keep their earlier names in `baselines/__init__.py`.
"""

MOVED = {
    "lorta.harness.adapter.PeftAdapter": "lorta.api.peft_adapter.PeftAdapter",
}
