"""Any adapter that changes weight matrices as an ordinary LoRA, by the singular values of each change.

The change is the merged weight minus the weight that the base model had before the adapter came, so that it does not
matter how a method makes it: as a sum (VeRA, LoTR), as a product (OFT, ETHER) or on a base that it splits first
(PiSSA). All of it is computed in float64, so that the rank of a change of low rank is seen; what is lost is reported
for each module, after the matrices have been rounded to float32.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorta.tuner.export import (
    MODULE_KEYS,
    base_class,
    lora_config,
    peft_type,
    read_base_config,
    read_config,
    read_weights,
    write_adapter,
)
from lorta.weight_files import require_free

RESIDUALS = "lora_residuals.json"
EXACT = 1e-6  # relative residual that the rounding to float32 may leave
MERGE_ROUNDINGS = 16 * 2.0**-52  # of the base weight's norm: singular values below it are what merging rounds away
HEADS = ("score", "classifier", "out_proj", "qa_outputs")  # the last linear layer of transformers' heads


@dataclass(frozen=True)
class Truncation:
    """How many singular values of each module are kept. Raises ValueError for a rank below 1, a residual not in [0, 1).

    Attributes:
        rank: at most so many; None: no limit.
        residual: with `rank` None, the fewest whose relative residual (Frobenius norm) is at most this.
    """

    rank: int | None = None
    residual: float = EXACT

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"the rank of a LoRA must be at least 1, got {self.rank}.")
        if not 0 <= self.residual < 1:
            raise ValueError(f"a relative residual must be at least 0 and below 1, got {self.residual}.")


class ModuleFit(NamedTuple):
    """How near a module's LoRA is: its rank, the norm of the change, and the norm of what is left of it, relative."""

    rank: int
    norm: float
    residual: float


class Exported(NamedTuple):
    """The LoRA, the fit of each module, and the relative residual of all modules together."""

    config: LoraConfig
    modules: dict[str, ModuleFit]
    residual: float


class Pair(NamedTuple):
    """down (rank, inputs) and up (outputs, rank) of one module in float32, and how near they are."""

    down: Tensor
    up: Tensor
    fit: ModuleFit


def export_singular(
    adapter: str | Path, folder: str | Path, truncation: Truncation | None = None, base: str | Path | None = None
) -> Exported:
    """Write a saved adapter of any method as a LoRA checkpoint. The same as `lorta export --rank` or `--residual`.

    Trained heads are copied. A bias that the method changes becomes a bias of the LoRA. Needs memory for the base model
    in float64 and once more in its own precision.

    Args:
        adapter: folder of the saved adapter. PEFT has to know its type: import the module of another's tuner first.
        folder: where to write; a folder without an adapter. `lora_residuals.json` there says what was lost.
        truncation: how many singular values are kept; None: as many as the change has.
        base: folder or hub name of the base model, with weights; None: the one that the adapter names.

    Returns:
        The LoRA's config, and by how much the modules differ.

    Raises:
        FileNotFoundError: there is no saved adapter, or no safetensors file.
        ValueError: the method changes no weight matrix of a linear layer, or more than those; there are no weights of
            the base model; or `folder` holds an adapter already.

    Example:
        >>> import tempfile
        >>> from peft import LoraConfig, get_peft_model
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> shape = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
        >>> saved, base, exported = (tempfile.mkdtemp() for _ in range(3))
        >>> LlamaForCausalLM(shape).save_pretrained(base)
        >>> lora = LoraConfig(r=3, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        >>> get_peft_model(LlamaForCausalLM.from_pretrained(base), lora).save_pretrained(saved)
        >>> export_singular(saved, exported, Truncation(), base).config.r
        3
    """
    require_free(folder, adapter)
    config, weights = read_config(adapter), read_weights(adapter, may_be_empty=True)
    if config.is_prompt_learning:
        raise ValueError(f"{_no_matrix(config)}: it gives the model something to attend to, and leaves its weights.")
    model = _load_base(config, weights, base)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    merged = _merge(_attach(model, config, adapter), config)
    changes, biases = _changes(merged, before, config)
    pairs = {
        path: _pair(change, before[f"{path}.weight"], truncation or Truncation()) for path, change in changes.items()
    }
    lora = _write(config, merged, pairs, biases, weights, Path(folder))
    exported = Exported(lora, {path: pair.fit for path, pair in pairs.items()}, _overall(pairs))
    _write_residuals(exported, peft_type(config), Path(folder))
    return exported


def _no_matrix(config: PeftConfig) -> str:
    return f"{peft_type(config)} has no linear update that a LoRA could hold"


def _load_base(config: PeftConfig, weights: Mapping[str, Tensor], base: str | Path | None) -> nn.Module:
    """Return the base model in float32, with as many labels as the saved head has."""
    base_config = read_base_config(config, base)
    heads = [weight for key, weight in weights.items() if key.removesuffix(".weight").rsplit(".", 1)[-1] in HEADS]
    if heads and str(getattr(config.task_type, "value", config.task_type)) in ("SEQ_CLS", "TOKEN_CLS"):
        base_config.num_labels = len(heads[-1])
    name = str(base or config.base_model_name_or_path)
    try:
        kind = base_class(config, base_config)
        return kind.from_pretrained(
            name,
            config=base_config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            use_safetensors=True,  # pickled weights are never loaded
            trust_remote_code=False,  # never asks, never runs it
        )
    except OSError as error:
        raise ValueError(
            f"{name}: the weights of the base model are needed, and are not there ({str(error).splitlines()[0]})."
        ) from error


def _attach(model: Any, config: PeftConfig, adapter: str | Path) -> PeftModel:
    try:
        return PeftModel.from_pretrained(model, str(adapter))
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{_no_matrix(config)}: what is saved in {adapter} does not fit a fresh base model ({error}). A method "
            "that rebuilds a part of the model, as LoRETTA does with an encoder's head, is read by the benchmark alone."
        ) from error


def _merge(model: Any, config: PeftConfig) -> nn.Module:
    """Return the base model in float64 with its adapter merged. Raises ValueError where a method cannot be merged."""
    tuner = model.double().eval().base_model
    try:
        tuner.merge_adapter()
    except (ValueError, NotImplementedError, AttributeError) as error:
        raise ValueError(f"{_no_matrix(config)}: {error}") from error
    return cast(nn.Module, tuner.model)


@torch.no_grad()
def _changes(
    model: nn.Module, before: Mapping[str, Tensor], config: PeftConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the change of each adapted layer's weight (outputs, inputs) and bias. Raises ValueError for others."""
    wrapped = [f"{path}." for path, module in model.named_modules() if isinstance(module, AuxiliaryTrainingWrapper)]
    changes: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    for path, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer) or path.startswith(tuple(wrapped)):
            continue
        base = layer.get_base_layer()
        if not isinstance(base, nn.Linear | Conv1D):
            raise ValueError(f"{_no_matrix(config)}: '{path}' is a {type(base).__name__}, no linear layer.")
        change = base.weight - before[f"{path}.weight"].double()
        changes[path] = change.T if isinstance(base, Conv1D) else change
        if base.bias is not None:
            old = before.get(f"{path}.bias")
            biases[path] = base.bias - (0 if old is None else old.double())
    if not changes:
        raise ValueError(f"{_no_matrix(config)}: it adapts no layer.")
    others = _other_changes(model, before, [f"{path}." for path in changes])
    if others:
        raise ValueError(f"{_no_matrix(config)}: it also changes {', '.join(others)}.")
    return changes, {path: bias for path, bias in biases.items() if bias.any()}


def _other_changes(model: nn.Module, before: Mapping[str, Tensor], adapted: list[str]) -> list[str]:
    """Return the base model's parameters outside of the adapted layers that are not what they were."""
    return [
        name
        for name, weight in model.named_parameters()
        if name in before and not name.startswith(tuple(adapted)) and not torch.equal(weight, before[name].double())
    ]


@torch.no_grad()
def _pair(change: Tensor, weight: Tensor, truncation: Truncation) -> Pair:
    """Return the LoRA of one module from the change (outputs, inputs) of its weight."""
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    tails = values.square().flip(0).cumsum(0).flip(0).sqrt()  # what is lost when this one and all later are dropped
    norm = tails[0].item()
    there = int((tails > MERGE_ROUNDINGS * weight.double().norm()).sum())
    if truncation.rank is None:
        rank = min(there, int((tails > truncation.residual * norm).sum()))
    else:
        rank = min(there, truncation.rank)
    rank = max(rank, 1)  # PEFT takes no LoRA of rank 0
    roots = values[:rank].sqrt()
    down, up = (roots[:, None] * right[:rank]).float(), (left[:, :rank] * roots).float()
    lost = (change - up.double() @ down.double()).norm().item()
    return Pair(down, up, ModuleFit(rank, norm, lost / norm if norm else 0.0))


def _overall(pairs: Mapping[str, Pair]) -> float:
    norms = torch.tensor([pair.fit.norm for pair in pairs.values()], dtype=torch.float64)
    lost = norms * torch.tensor([pair.fit.residual for pair in pairs.values()], dtype=torch.float64)
    return (lost.norm() / norms.norm()).item() if norms.any() else 0.0


def _write(
    config: PeftConfig,
    model: nn.Module,
    pairs: Mapping[str, Pair],
    biases: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    folder: Path,
) -> LoraConfig:
    """Write the LoRA, with the weights that were saved whole; all its modules get a bias where one of them has one."""
    heads = tuple(
        f"{MODULE_KEYS}{path}."
        for path, module in model.named_modules()
        if isinstance(module, AuxiliaryTrainingWrapper)
    )
    written = {key: weight for key, weight in weights.items() if key.startswith(heads)}
    for path, (down, up, _) in pairs.items():
        written |= {f"{MODULE_KEYS}{path}.lora_A.weight": down, f"{MODULE_KEYS}{path}.lora_B.weight": up}
        if biases:
            written[f"{MODULE_KEYS}{path}.lora_B.bias"] = biases.get(path, torch.zeros(len(up))).float()
    layers = (cast(BaseTunerLayer, model.get_submodule(path)).get_base_layer() for path in pairs)
    ranks = {path: pair.fit.rank for path, pair in pairs.items()}
    transposed = any(isinstance(layer, Conv1D) for layer in layers)
    lora = lora_config(config, ranks, transposed=transposed, lora_bias=bool(biases))
    write_adapter(lora, written, folder)
    return lora


def _write_residuals(exported: Exported, source: str, folder: Path) -> None:
    modules = {path: fit._asdict() for path, fit in exported.modules.items()}
    content = {"exported_from": source, "residual": exported.residual, "modules": modules}
    (folder / RESIDUALS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
