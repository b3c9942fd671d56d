"""Private names of libraries that the code relies on: when one moves, the failure says which, and where we use it."""

import ast
import inspect
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from transformers import Trainer
from trl import DPOTrainer, SFTTrainer

from lorta.peft_extension.compatibility import NAMES, PARAMETERS

EXTRA_LOSSES = "baselines/peft_methods/extra_losses.py"
ROOT = Path(__file__).parents[1]
FILES = [file for folder in ("lorta", "baselines", "experiments") for file in (ROOT / folder).rglob("*.py")]
BASES = (BaseTuner, BaseTunerLayer, Trainer, DPOTrainer, SFTTrainer, torch.nn.Module)
OWN = {"_create_factors", "_evaluate", "_name", "_save"}  # ours: a library's class merely has one of that name, too
PUBLIC = {"_replace", "_fields", "_asdict", "_exit"}  # of named tuples and of os: documented in spite of their names

# library, name, file that uses it, parameters (None: it is no function)
CALLED = [
    ("hydra-core", "hydra._internal.config_repository:CachingConfigRepository", "lorta/config/compose.py", "delegate"),
    (
        "hydra-core",
        "hydra._internal.config_repository:ConfigRepository",
        "lorta/config/compose.py",
        "config_search_path",
    ),
    (
        "hydra-core",
        "hydra._internal.defaults_list:create_defaults_list",
        "lorta/config/compose.py",
        "repo config_name overrides_list prepend_hydra skip_missing",
    ),
    (
        "hydra-core",
        "hydra._internal.config_loader_impl:ConfigLoaderImpl._compose_config_from_defaults_list",
        "lorta/config/compose.py",
        "self defaults repo",
    ),
    (
        "omegaconf",
        "omegaconf:DictConfig._get_node",
        "lorta/config/compose.py",
        "self key validate_access validate_key throw_on_missing_value throw_on_missing_key",
    ),
    ("omegaconf", "omegaconf:Node._value", "lorta/config/compose.py", "self"),
    ("peft", "peft.tuners._buffer_dict:BufferDict", "baselines/sara/tuner.py", "buffers persistent"),
    ("peft", "peft.tuners.boft.layer:_FBD_CUDA", "baselines/peft_methods/boft.py", None),
    ("peft", "peft.tuners.boft.layer:get_fbd_cuda", "baselines/peft_methods/boft.py", ""),
    (
        "peft",
        "peft.tuners.lora:LoraModel._get_kasa_loss",
        EXTRA_LOSSES,
        "self adapter_names",
    ),
    (
        "peft",
        "peft.tuners.lora:LoraModel._get_monteclora_loss",
        EXTRA_LOSSES,
        "self adapter_names",
    ),
    (
        "peft",
        "peft.tuners.pvera.layer:PveraLayer._reparametrize",
        EXTRA_LOSSES,
        "self mu logvar adapter_name",
    ),
    (
        "peft",
        "peft.tuners.tuners_utils:_maybe_include_all_linear_layers",
        "lorta/peft_extension/shared_factors.py",
        "peft_config model",
    ),
    ("peft", "peft.tuners.tuners_utils:BaseTuner._check_merge_allowed", "baselines/loretta/tuner.py", "self"),
    (
        "peft",
        "peft.tuners.tuners_utils:BaseTuner._unload_and_optionally_merge",
        "baselines/tensor/cara.py",
        "self merge progressbar safe_merge adapter_names",
    ),
    (
        "peft",
        "peft.tuners.tuners_utils:BaseTunerLayer._cast_input_dtype",
        "lorta/peft_extension/shared_factors.py",
        "self x dtype",
    ),
    (
        "peft",
        "peft.tuners.tuners_utils:BaseTunerLayer._freeze_non_trainable_peft_weights",
        "lorta/peft_extension/shared_factors.py",
        "self adapter_names",
    ),
    ("peft", "peft.tuners.tuners_utils:BaseTunerLayer._active_adapter", "lorta/peft_extension/shared_factors.py", None),
    ("peft", "peft.tuners.tuners_utils:BaseTunerLayer._disable_adapters", "lorta/tuner/layer.py", None),
    (
        "torch",
        "torch.nn:Module._load_from_state_dict",
        "baselines/linear/frozen_spectrum.py",
        "self state_dict prefix local_metadata strict missing_keys unexpected_keys error_msgs",
    ),
    (
        "torch",
        "torch.nn.parallel:DistributedDataParallel._active_ddp_module",
        "lorta/peft_extension/shared_factors.py",
        None,
    ),
    ("torch", "torch._C:_are_functorch_transforms_active", "lorta/tuner/products.py", None),
    ("torch", "torch._C:_autograd", "lorta/tuner/wide_tables.py", None),
    ("torch", "torch._C._autograd:_top_saved_tensors_default_hooks", "lorta/tuner/wide_tables.py", None),
    ("torch", "torch.autograd.forward_ad:_current_level", "lorta/tuner/products.py", None),
    ("torch", "torch:Tensor._version", "lorta/tuner/products.py", None),
    ("torch", "torch:nn.Module._forward_hooks", "lorta/tuner/layer.py", None),
    ("torch", "torch:nn.Module._forward_pre_hooks", "lorta/tuner/layer.py", None),
    ("Python", "multiprocessing.forkserver:_forkserver", "lorta/launch/local.py", None),
    ("Python", "multiprocessing.forkserver:ForkServer._stop", "lorta/launch/local.py", "self"),
    ("torch", "torch:nn.Module._backward_hooks", "lorta/tuner/layer.py", None),
    ("torch", "torch:nn.Module._backward_pre_hooks", "lorta/tuner/layer.py", None),
    ("transformers", "transformers:Trainer._get_train_sampler", "lorta/training/trainer.py", "self train_dataset"),
    (
        "transformers",
        "transformers:Trainer._load_from_checkpoint",
        "lorta/training/checkpoint.py",
        "self resume_from_checkpoint model",
    ),
    (
        "transformers",
        "transformers:Trainer._load_optimizer_and_scheduler",
        "lorta/training/checkpoint.py",
        "self checkpoint",
    ),
    ("transformers", "transformers:Trainer._load_rng_state", "lorta/training/checkpoint.py", "self checkpoint"),
    ("transformers", "transformers:Trainer._save_checkpoint", "lorta/training/checkpoint.py", "self model trial"),
    (  # the three below are public, but their order of calls is not promised
        "transformers",
        "transformers:Trainer.get_batch_samples",
        "lorta/training/trainer.py",
        "self epoch_iterator num_batches device",
    ),
    (
        "transformers",
        "transformers:Trainer.training_step",
        "lorta/training/trainer.py",
        "self model inputs num_items_in_batch",
    ),
    (
        "transformers",
        "transformers:Trainer.compute_loss",
        "experiments/preference.py",
        "self model inputs return_outputs num_items_in_batch",
    ),
    (
        "transformers",
        "transformers.models.roberta.modeling_roberta:RobertaEmbeddings.forward",
        "baselines/peft_methods/prompt_tuning.py",
        "self input_ids token_type_ids position_ids inputs_embeds past_key_values_length",
    ),
    (
        "transformers",
        "transformers.models.bert.modeling_bert:BertEmbeddings.forward",
        "baselines/peft_methods/prompt_tuning.py",
        "self input_ids token_type_ids position_ids inputs_embeds past_key_values_length",
    ),
    ("pebble", "pebble.pool.process:fetch_task", "lorta/launch/worker.py", "channel"),
    (
        "trl",
        "trl:DPOTrainer._prepare_dataset",
        "experiments/preference.py",
        "self dataset processing_class args dataset_name",
    ),
]
CALLED += [
    ("peft", f"{owner}.{name}", "lorta/peft_extension/registry.py", parameters)
    for owner, methods in PARAMETERS.items()
    for name, parameters in methods.items()
]
# library, module, text that its source must have, file that relies on it: attributes that only instances have
WRITTEN = [
    ("peft", "peft.peft_model", "self._adapters_disabled = True", "baselines/peft_methods/prompt_tuning.py"),
    ("peft", "peft.peft_model", "base_model._enable_peft_forward_hooks(", "lorta/peft_extension/registry.py"),
    ("peft", "peft.tuners.boft.layer", "global _FBD_CUDA", "baselines/peft_methods/boft.py"),
    ("transformers", "transformers.training_args", "self._n_gpu", "lorta/training/trainer.py"),
    ("transformers", "transformers.trainer", "self._tr_loss = ", "lorta/training/checkpoint.py"),
    ("transformers", "transformers.trainer", "self._globalstep_last_logged = ", "lorta/training/checkpoint.py"),
    ("transformers", "transformers.trainer", "self.current_gradient_accumulation_steps", "lorta/training/trainer.py"),
    (
        "transformers",
        "transformers.modeling_utils",
        '"_gradient_checkpointing_func"',
        "lorta/peft_extension/shared_factors.py",
    ),
    ("pebble", "pebble.pool.process", "yield fetch_task(channel)", "lorta/launch/worker.py"),
    ("pebble", "pebble.pool.process", "except EOFError:", "lorta/launch/worker.py"),
    ("transformers", "transformers.configuration_utils", '"_commit_hash"', "baselines/selected_parameters.py"),
    ("trl", "trl.trainer.sft_trainer", 'self._metrics = {"train": ', "lorta/training/checkpoint.py"),
    ("trl", "trl.trainer.dpo_trainer", 'self._metrics = {"train": ', "lorta/training/checkpoint.py"),
    ("trl", "trl.trainer.dpo_trainer", "if self.ref_model is not None", "experiments/preference.py"),
]


def problem(library: str, name: str, file: str, parameters: str | None) -> str | None:
    """A sentence on what a library no longer has as the code needs it, or None."""
    number = platform.python_version() if library == "Python" else version(library)
    start = f"{library} {number}: {name.replace(':', '.')}, which {file} relies on,"
    try:
        value = resolve_name(name)
    except (ImportError, AttributeError):
        value = torch.nn.Module().__dict__.get(name.rpartition(".")[2])  # hooks are set for each module
        if value is None:
            return f"{start} is gone."
    if parameters is None:
        return None
    present = " ".join(inspect.signature(value).parameters)
    return None if present == parameters else f"{start} takes ({present}) instead of ({parameters})."


@pytest.mark.parametrize(("library", "name", "file", "parameters"), CALLED, ids=[name for _, name, _, _ in CALLED])
def test_a_private_name_is_there_with_the_parameters_that_we_know(library, name, file, parameters):
    assert problem(library, name, file, parameters) is None


@pytest.mark.parametrize(("library", "module", "text", "file"), WRITTEN, ids=[f"{w[1]}:{w[2]}" for w in WRITTEN])
def test_a_private_attribute_is_still_set(library, module, text, file):
    present = text in inspect.getsource(resolve_name(module))
    assert present, f"{library} {version(library)}: {module} has no `{text}` any more, which {file} relies on."


def test_a_name_that_is_gone_and_a_changed_signature_are_said_in_a_sentence():
    gone = problem("peft", "peft.tuners.lora:LoraModel._get_no_loss", EXTRA_LOSSES, "self")
    assert gone and gone.endswith(
        "LoraModel._get_no_loss, which baselines/peft_methods/extra_losses.py relies on, is gone."
    )
    changed = problem("omegaconf", "omegaconf:Node._value", "lorta/config/compose.py", "self key")
    assert changed and changed.endswith("takes (self) instead of (self key).")


def test_the_files_that_are_named_use_what_they_are_named_for():
    for _, name, file, _ in CALLED:
        if name.partition(":")[0] + ":" + name.rpartition(":")[2].partition(".")[0] in PARAMETERS:
            continue  # compatibility.py holds these, and its own test compares them with the overrides
        word = name.rpartition(":")[2].rpartition(".")[2]
        if word not in ("forward", "get_fbd_cuda"):
            assert word in (ROOT / file).read_text(), f"{file} does not use {word}"


def private_names(tree: ast.AST) -> Iterator[str]:
    """Private names that a file takes from other objects or modules, or shares with a library's base class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")
            yield from (
                alias.name
                for alias in node.names
                if any(part.startswith("_") and not part.startswith("__") for part in [*module, alias.name])
            )
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "name", "")
        if not isinstance(name, str) or not name.startswith("_") or name.startswith("__"):
            continue
        own = isinstance(node, ast.FunctionDef | ast.ClassDef) or (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        )
        if not own or any(hasattr(base, name) for base in BASES):
            yield name


def test_every_private_name_that_the_code_uses_is_listed():
    listed = {name.rpartition(":")[2].rpartition(".")[2] for _, name, _, _ in CALLED}
    listed |= {name.rpartition(":")[2].rpartition(".")[2] for name in NAMES} | PUBLIC | OWN
    written = " ".join(text for _, _, text, _ in WRITTEN)
    used = {
        (name, file.relative_to(ROOT).as_posix())
        for file in FILES
        for name in private_names(ast.parse(file.read_text()))
    }
    assert sorted((name, file) for name, file in used if name not in listed and name not in written) == []
