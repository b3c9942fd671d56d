"""A LoRTA adapter as an ordinary LoRA checkpoint, exactly: for plain PEFT, and for servers that speak LoRA.

Every slice of the tensor is a product of two thin matrices already (`factors.low_rank_pair`), so lora_A and lora_B are
written down, nothing is approximated and no base weight is read. All scalings are folded into the matrices: lora_alpha
equals the rank, so a reader multiplies by 1, also one that does not know `alpha_pattern`. Products are taken in float64
and rounded once: the matrix on the side of the heads is the nearest of its dtype, the other one is the factor itself.

A module has the tensor's rank, but a fused q, k, v module of an order with one tensor for each matrix has the ranks of
its projections added up: `rank_pattern` says so.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from peft import LoraConfig, PeftConfig, PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lorta.peft_extension.saving import adapter_weights
from lorta.tuner.config import PEFT_TYPE
from lorta.tuner.layer import HIDDEN, PREFIX, LortaLinear
from lorta.tuner.model import LortaModel
from lorta.weight_files import require_free, require_no_pointer, require_whole

AUTO_CLASSES = {  # what PEFT's task types stand for
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "FEATURE_EXTRACTION": "AutoModel",
}
LORTA_KEYS = "base_model." + PREFIX
MODULE_KEYS = "base_model.model."
CPU = torch.device("cpu")  # some accelerators have no float64


def export_model(model: PeftModel, folder: str | Path, adapter_name: str = "default") -> LoraConfig:
    """Write an attached LoRTA adapter as a LoRA checkpoint.

    The update of every layer is the same to rounding; nothing is approximated. Modules that were trained as a whole,
    such as a classification head, are written too.

    Args:
        model: a PeftModel with a LoRTA adapter.
        folder: where to write; made if it does not exist.
        adapter_name: which adapter of the model.

    Returns:
        The config of the LoRA. Its `lora_alpha` equals its `r`: all scalings are in the matrices.

    Raises:
        ValueError: the adapter is no LoRTA.

    Example:
        >>> import tempfile
        >>> from peft import get_peft_model
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from lorta.tuner import LortaConfig
        >>> shape = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
        >>> model = get_peft_model(LlamaForCausalLM(shape), LortaConfig(r=2, task_type="CAUSAL_LM"))
        >>> lora = export_model(model, tempfile.mkdtemp())
        >>> lora.peft_type.value, lora.r, len(lora.target_modules)
        ('LORA', 2, 8)
    """
    config = _lorta(model.peft_config[adapter_name], f"adapter '{adapter_name}'")
    weights = adapter_weights(model, adapter_name)
    return _write(config, cast(nn.Module, model.base_model), adapter_name, weights, Path(folder))


def export_folder(adapter: str | Path, folder: str | Path, base: str | Path | None = None) -> LoraConfig:
    """Write a saved LoRTA adapter as a LoRA checkpoint. The same as `lorta export`.

    Module names are those of the class that transformers' Auto class for the adapter's task type chooses; an adapter
    without a task type names its class itself.

    Args:
        adapter: folder of the saved LoRTA adapter.
        folder: where to write; a folder without an adapter.
        base: the base model's folder, config.json or hub name; None: the one that the adapter names. Only the
            configuration is read, never weights.

    Returns:
        The config of the LoRA.

    Raises:
        FileNotFoundError: there is no saved adapter, or no safetensors file.
        ValueError: the adapter is no LoRTA, its base model is unknown, or `folder` holds an adapter already.

    Example:
        >>> import tempfile
        >>> from peft import get_peft_model
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from lorta.tuner import LortaConfig
        >>> shape = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
        >>> saved, base, exported = (tempfile.mkdtemp() for _ in range(3))
        >>> get_peft_model(LlamaForCausalLM(shape), LortaConfig(r=2, task_type="CAUSAL_LM")).save_pretrained(saved)
        >>> shape.save_pretrained(base)
        >>> export_folder(saved, exported, base).r
        2
    """
    require_free(folder, adapter)
    config = _lorta(read_config(adapter), str(adapter))
    weights = read_weights(adapter)
    base_config = read_base_config(config, base)
    with torch.device("meta"):  # names and shapes, no weights
        model = model_class(config, base_config)(base_config)
    tuner = LortaModel(model, config, "default")
    for key in [key for key in weights if key.startswith(LORTA_KEYS)]:
        getattr(tuner, key.removeprefix("base_model."))["default"] = nn.Parameter(weights[key], requires_grad=False)
    return _write(config, tuner, "default", weights, Path(folder))


def read_config(folder: str | Path) -> PeftConfig:
    """Return the config of a saved adapter.

    Raises FileNotFoundError for a folder without one, ValueError for one that cannot be read.
    """
    if not (Path(folder) / CONFIG_NAME).is_file():
        raise FileNotFoundError(f"{folder}: no adapter is saved there, {CONFIG_NAME} is missing.")
    require_no_pointer(Path(folder) / CONFIG_NAME)
    try:
        return PeftConfig.from_pretrained(str(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{Path(folder) / CONFIG_NAME}: PEFT cannot read it ({error}).") from error


def read_weights(folder: str | Path, may_be_empty: bool = False) -> dict[str, Tensor]:
    """Return the weights of a saved adapter; some tuners have empty tensors among them.

    Raises FileNotFoundError where there is no safetensors file, ValueError for one that is cut off, or that holds empty
    tensors or numbers that are none.
    """
    file = Path(folder) / SAFETENSORS_WEIGHTS_NAME
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: {SAFETENSORS_WEIGHTS_NAME} is missing; other formats are not read.")
    require_whole(file)
    weights = load_file(file)
    empty = [name for name, weight in weights.items() if weight.numel() == 0]
    if empty and not may_be_empty:
        raise ValueError(
            f"{file}: {len(empty)} of {len(weights)} tensors are empty, such as {empty[0]}, as DeepSpeed ZeRO-3 saves "
            "them: gather the weights (stage3_gather_16bit_weights_on_model_save) and save again."
        )
    if wrong := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise ValueError(f"{file}: {wrong[0]} holds NaN or infinite numbers: take a checkpoint from before they came.")
    return weights


def read_base_config(config: PeftConfig, base: str | Path | None) -> Any:
    """Return the transformers config of the model that an adapter belongs to. Raises ValueError if none is named."""
    name = base or config.base_model_name_or_path
    if not name:
        raise ValueError("the adapter does not name its base model: say where its config.json is (--base).")
    try:
        return transformers.AutoConfig.from_pretrained(str(name), trust_remote_code=False)  # never asks, never runs it
    except OSError as error:
        raise ValueError(f"{name}: no model configuration is there ({str(error).splitlines()[0]}).") from error
    except ValueError as error:
        because = " ".join(str(error).split())
        raise ValueError(
            f"{name}: the model's own code is never run, and transformers has none ({because})."
        ) from error


def model_class(config: PeftConfig, base_config: Any) -> Any:
    """Return what builds the adapter's base model from its configuration. Raises ValueError for an unknown class."""
    kind = base_class(config, base_config)
    return partial(kind.from_config, trust_remote_code=False) if hasattr(kind, "from_config") else kind


def base_class(config: PeftConfig, base_config: Any) -> Any:
    """Return the class of transformers that loads the adapter's base model, an Auto class where the task names one.

    Raises ValueError for an unknown class.
    """
    if config.task_type is not None:
        automatic = AUTO_CLASSES.get(str(getattr(config.task_type, "value", config.task_type)))
        if automatic is not None:
            return getattr(transformers, automatic)
    named = config.auto_mapping or {}
    name = named.get("base_model_class") or next(iter(base_config.architectures or ()), None)
    if name is None or not hasattr(transformers, name):
        raise ValueError(f"transformers has no model class '{name}': attach the adapter and use export_model.")
    return getattr(transformers, name)


def write_adapter(config: PeftConfig, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write the two files of a PEFT checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    contiguous = {key: weight.detach().cpu().clone().contiguous() for key, weight in weights.items()}
    content = save(contiguous, metadata={"format": "pt"})
    (folder / SAFETENSORS_WEIGHTS_NAME).write_bytes(content)  # save_file makes it readable to its owner alone


def _lorta(config: PeftConfig, where: str) -> PeftConfig:
    if peft_type(config) != PEFT_TYPE:
        raise ValueError(
            f"{where} is a {peft_type(config)} adapter, not {PEFT_TYPE}: only LoRTA is exported without its base "
            "model's weights; export_singular writes others by singular values."
        )
    return config


def peft_type(config: PeftConfig) -> str:
    """Return the name of an adapter's kind; PEFT's own kinds are members of an enum, others are names already."""
    return str(getattr(config.peft_type, "value", config.peft_type))


@torch.no_grad()
def _write(config: Any, tuner: nn.Module, adapter: str, weights: Mapping[str, Tensor], folder: Path) -> LoraConfig:
    """Write LoRA matrices of all layers of a tuner, and those weights that are not the tuner's factors."""
    layers = {
        path: module
        for path, module in cast(nn.Module, tuner.model).named_modules()
        if isinstance(module, LortaLinear) and adapter in module.position
    }
    written = {key: weight for key, weight in weights.items() if not key.startswith(LORTA_KEYS)}
    ranks: dict[str, int] = {}
    for path, layer in layers.items():
        pair = layer.low_rank_pair(adapter, CPU, torch.float64)
        dtype = torch.promote_types(getattr(layer, HIDDEN)[adapter].dtype, torch.float32)
        down, up = (matrix.to(dtype) for matrix in pair)
        ranks[path] = down.shape[1]
        written |= {f"{MODULE_KEYS}{path}.lora_A.weight": down.T, f"{MODULE_KEYS}{path}.lora_B.weight": up}
    lora = lora_config(
        config,
        ranks,
        transposed=any(layer.transposed for layer in layers.values()),
        lora_dropout=config.dropout,
        bias="lora_only" if config.bias == "lorta_only" else config.bias,
    )
    write_adapter(lora, written, folder)
    return lora


def lora_config(config: Any, ranks: Mapping[str, int], transposed: bool, **settings: Any) -> LoraConfig:
    """Return the LoRA that has the rank of each path and all scalings in its matrices, for the base of `config`."""
    rank = min(ranks.values())
    larger = {path: own for path, own in ranks.items() if own != rank}
    lora = LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=larger,
        alpha_pattern=dict(larger),
        fan_in_fan_out=transposed,  # true of a Conv1D
        modules_to_save=getattr(config, "modules_to_save", None),
        trainable_token_indices=getattr(config, "trainable_token_indices", None),
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        revision=config.revision,
        auto_mapping=config.auto_mapping,
        inference_mode=True,
        **settings,
    )
    lora.target_modules = sorted(ranks)  # a list, so that the file does not depend on hashing
    return lora
