"""To which releases of PEFT a tuner can be added.

PEFT offers no public way, so the tuners of this project rest on names and methods that a release may change. Those of
TESTED are known to fit. Any other is compared with what is needed: it is refused where something is missing, and taken
with a warning where all is there.
"""

import inspect
import warnings
from pkgutil import resolve_name
from typing import Any

import peft

TESTED = ("0.21.0", "0.21.1", "0.21.2")
REMEDY = "pip install 'peft>=0.21,<0.22'"
NAMES = (  # where a tuner is registered and looked up, and what its layers call
    "peft.mapping:PEFT_TYPE_TO_CONFIG_MAPPING",
    "peft.mapping:PEFT_TYPE_TO_PREFIX_MAPPING",
    "peft.mapping:PEFT_TYPE_TO_TUNER_MAPPING",
    "peft.utils.save_and_load:PEFT_TYPE_TO_TUNER_MAPPING",  # before 0.21 only PEFT's own types could be saved
    "peft.tuners.tuners_utils:check_adapters_to_merge",
    "peft.tuners.tuners_utils:_maybe_include_all_linear_layers",
    "peft.tuners.tuners_utils:BaseTunerLayer._cast_input_dtype",
    "peft.tuners.tuners_utils:BaseTunerLayer._freeze_non_trainable_peft_weights",
    "peft.utils.other:AuxiliaryTrainingWrapper",
    "peft.utils.other:get_pattern_key",
    "peft.utils.quantization_utils:resolve_quantization_backend",
)
PARAMETERS = {  # of the methods that are overridden
    "peft.tuners.tuners_utils:BaseTuner": {
        "delete_adapter": "self adapter_name",
        "inject_adapter": "self model adapter_name autocast_adapter_dtype low_cpu_mem_usage state_dict",
        "_cast_adapter_dtype": "self adapter_name autocast_adapter_dtype",
        "_check_target_module_exists": "peft_config key",
        "_create_and_replace": "self peft_config adapter_name target target_name parent current_key parameter_name",
        "_pre_injection_hook": "self model config adapter_name",
        "_prepare_adapter_config": "self peft_config model_config",
        "_prepare_model": "self peft_config model",
        "_remap_adapter_state_dict_for_load": "model config adapter_name state_dict",
        "_remove_adapter_name_from_key": "key adapter_name",
        "_replace_module": "self parent child_name new_module child",
    },
    "peft.tuners.tuners_utils:BaseTunerLayer": {
        "merge": "self safe_merge adapter_names",
        "set_adapter": "self adapter_names inference_mode",
        "supports_lora_conversion": "self adapter_name",
        "unmerge": "self",
        "_get_available_adapters": "self",
        "_move_adapter_to_device_of_base_layer": "self adapter_name device",
    },
}


def check_peft() -> None:
    """Refuse a PEFT that lacks what the tuners rest on, and warn of another one that was not tested.

    Raises ImportError with what is missing and the remedy.
    """
    if peft.__version__ in TESTED:
        return
    tested = f"was tested with peft {', '.join(TESTED)}"
    if missing := differences():
        raise ImportError(
            f"lorta cannot add its tuners to peft {peft.__version__}, where {'; '.join(missing)}. "
            f"It {tested}: {REMEDY}."
        )
    warnings.warn(
        f"lorta {tested}, not with {peft.__version__}. That has all that its tuners need by name; if a tuner "
        f"misbehaves, try {REMEDY}.",
        stacklevel=2,
    )


def differences() -> list[str]:
    """Return what the installed PEFT lacks, or has with other parameters, of what the tuners rest on."""
    absent = [f"{name.replace(':', '.')} does not exist" for name in NAMES if _resolved(name) is None]
    for owner, methods in PARAMETERS.items():
        for name, wanted in methods.items():
            method, title = _resolved(f"{owner}.{name}"), f"{owner.rpartition(':')[2]}.{name}"
            if method is None:
                absent.append(f"{title} does not exist")
            elif (parameters := list(inspect.signature(method).parameters)) != wanted.split():
                absent.append(f"{title} takes {', '.join(parameters)} instead of {', '.join(wanted.split())}")
    return absent


def _resolved(name: str) -> Any:
    try:
        return resolve_name(name)
    except (ImportError, AttributeError):
        return None
