"""The way back from `export`: an ordinary LoRA on q, k, v, o, or on some of them, as the nearest LoRTA of a rank.

A LoRA that was exported from a LoRTA is found again; any other becomes smaller and loses something, which is measured.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.utils.other import get_pattern_key
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lorta.geometry import Geometry
from lorta.peft_extension.saving import adapter_weights
from lorta.tuner.config import LortaConfig
from lorta.tuner.cp_fit import Fit, SlicedTensor, cp_fit
from lorta.tuner.export import (
    LORTA_KEYS,
    MODULE_KEYS,
    peft_type,
    read_base_config,
    read_config,
    read_weights,
    write_adapter,
)
from lorta.tuner.factors import HeadSide
from lorta.tuner.targets import FEEDFORWARD_ROLES, check_shape, describe, position_of
from lorta.weight_files import require_free

MATRIX = re.compile(rf"{re.escape(MODULE_KEYS)}(.+)\.lora_([AB])\.weight")
VARIANTS = (  # settings of LoRAs whose update is not scaling * B @ A alone
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
)
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that take something from the base


@dataclass(frozen=True)
class FitSettings:
    """How to look for the nearest LoRTA.

    Args:
        rank: rank of the LoRTA.
        head_side: as in LortaConfig.
        restarts: number of starts of the search; the best result is kept.
        seed: of the random starts.
        sweeps: at most so many passes over the five factors in each start.
    """

    rank: int
    head_side: HeadSide = "natural"
    restarts: int = 4
    seed: int = 0
    sweeps: int = 1000


class Fitted(NamedTuple):
    """A LoRTA that was written, and its distance from the LoRA."""

    config: LortaConfig  # config.geometry has the layers and roles that the rows and columns of fit.slices stand for
    fit: Fit


def fit_model(model: PeftModel, folder: str | Path, settings: FitSettings, adapter_name: str = "default") -> Fitted:
    """Write the nearest LoRTA to an attached LoRA as a PEFT checkpoint.

    Args:
        model: a PeftModel with a LoRA on some or all of q, k, v and o.
        folder: where to write; made if it does not exist.
        settings: rank and search.
        adapter_name: which adapter of the model.

    Returns:
        The config of the LoRTA, and the fit: `fit.residual` is the norm of what was lost, relative to the norm of the
        LoRA's update.

    Raises:
        ValueError: the adapter is no plain LoRA (DoRA and other variants), or adapts other modules.

    Example:
        >>> import tempfile
        >>> from peft import LoraConfig, get_peft_model
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> shape = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
        >>> lora = LoraConfig(r=1, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        >>> model = get_peft_model(LlamaForCausalLM(shape), lora)
        >>> fitted = fit_model(model, tempfile.mkdtemp(), FitSettings(rank=4, restarts=1))
        >>> fitted.config.r, 0 <= fitted.fit.residual <= 1
        (4, True)
    """
    config = _plain_lora(model.peft_config[adapter_name], f"adapter '{adapter_name}'")
    weights = adapter_weights(model, adapter_name)
    return _write(config, weights, Geometry.from_config(_mapping(model.config)), settings, Path(folder))


def fit_folder(lora: str | Path, folder: str | Path, settings: FitSettings, base: str | Path | None = None) -> Fitted:
    """Write the nearest LoRTA to a saved LoRA as a PEFT checkpoint. The same as `lorta fit`.

    Args:
        lora: folder of the saved LoRA.
        folder: where to write; a folder without an adapter.
        settings: rank and search.
        base: the base model's folder, config.json or hub name; None: the one that the LoRA names. Only the
            configuration is read.

    Returns:
        As `fit_model`.

    Raises:
        FileNotFoundError: there is no saved adapter, or no safetensors file.
        ValueError: the adapter is no plain LoRA, its base model is unknown, or `folder` holds an adapter already.

    Example:
        >>> import tempfile
        >>> from peft import LoraConfig, get_peft_model
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> shape = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
        >>> lora = LoraConfig(r=1, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        >>> saved, base, fitted = (tempfile.mkdtemp() for _ in range(3))
        >>> get_peft_model(LlamaForCausalLM(shape), lora).save_pretrained(saved)
        >>> shape.save_pretrained(base)
        >>> fit_folder(saved, fitted, FitSettings(rank=4, restarts=1), base).config.r
        4
    """
    require_free(folder, lora)
    config = _plain_lora(read_config(lora), str(lora))
    geometry = Geometry.from_config(_mapping(read_base_config(config, base)))
    return _write(config, read_weights(lora), geometry, settings, Path(folder))


def _mapping(config: Any) -> Mapping[str, Any]:
    return config if isinstance(config, Mapping) else config.to_dict()


def _plain_lora(config: PeftConfig, where: str) -> LoraConfig:
    if not isinstance(config, LoraConfig) or peft_type(config) != "LORA":  # AdaLoRA's config is a LoraConfig too
        raise ValueError(f"{where} is a {peft_type(config)} adapter, not LORA: only a LoRA is fitted.")
    variants = [name for name in VARIANTS if getattr(config, name, None)]
    if config.bias != "none":
        variants.append("bias")
    if variants:
        raise ValueError(f"{where} sets {', '.join(variants)}: its update is not a product of two matrices alone.")
    if str(config.init_lora_weights).startswith(CHANGES_BASE):
        raise ValueError(
            f"{where} was initialised by '{config.init_lora_weights}', which changes base weights: save it with "
            f"path_initial_model_for_weight_conversion (PEFT) and fit what that writes."
        )
    return config


def _write(
    lora: LoraConfig, weights: Mapping[str, Tensor], geometry: Geometry, settings: FitSettings, folder: Path
) -> Fitted:
    pairs, others = _matrices(weights)
    described = _described(geometry, list(pairs))
    config = LortaConfig(
        r=settings.rank,
        alpha=float(settings.rank),  # a scaling of 1
        head_side=settings.head_side,
        target_modules=list(pairs),
        dropout=lora.lora_dropout,
        modules_to_save=lora.modules_to_save,
        task_type=lora.task_type,
        base_model_name_or_path=lora.base_model_name_or_path,
        revision=lora.revision,
        auto_mapping=lora.auto_mapping,
        inference_mode=True,
        geometry=described,
    )
    tensor = sliced_tensor(lora, pairs, config, geometry)
    fit = cp_fit(tensor, settings.rank, settings.restarts, settings.seed, settings.sweeps)
    dtype = torch.promote_types(next(iter(pairs.values()))[0].dtype, torch.float32)
    factors = {f"{LORTA_KEYS}{name}": factor.to(dtype) for name, factor in fit.factors.items()}
    write_adapter(config, factors | others, folder)
    return Fitted(config, fit)


def _matrices(weights: Mapping[str, Tensor]) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Return (lora_A, lora_B) of each module path, in sorted order, and the weights that are no LoRA's."""
    matched = {key: match.groups() for key in weights if (match := MATRIX.fullmatch(key))}
    others = {key: weight for key, weight in weights.items() if key not in matched}
    strange = [key for key in others if "lora_" in key]
    if strange or not matched:
        raise ValueError(f"not a plain LoRA on linear layers: {strange[0] if strange else 'there is no lora_A'}.")
    paths = sorted({path for path, _ in matched.values()})
    keys = {place: key for key, place in matched.items()}
    if missing := [f"{path}.lora_{side}" for path in paths for side in "AB" if (path, side) not in keys]:
        raise ValueError(
            f"the LoRA lacks {', '.join(missing[:3])}{' and others' if missing[3:] else ''}: save it again."
        )
    return {path: (weights[keys[path, "A"]], weights[keys[path, "B"]]) for path in paths}, others


def _described(geometry: Geometry, paths: list[str]) -> dict[str, Any]:
    described = describe(geometry, paths)
    wrong = [role for role in described["roles"] if role in FEEDFORWARD_ROLES]
    if wrong:
        raise ValueError(f"the fit is of q, k, v and o; this LoRA also adapts {', '.join(wrong)}.")
    return described


def sliced_tensor(
    lora: LoraConfig, pairs: Mapping[str, tuple[Tensor, Tensor]], config: LortaConfig, geometry: Geometry
) -> SlicedTensor:
    """Return the updates of a LoRA, scaling included, by layer and matrix, in float64.

    `pairs`: (lora_A, lora_B), (rank, inputs) and (outputs, rank), of each module path. Raises ValueError for shapes
    that do not allow the config's head side.
    """
    described = config.geometry or {}
    parts: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for path, (lora_A, lora_B) in pairs.items():
        position = position_of(config, geometry, described, path)
        shape = nn.Linear(lora_A.shape[1], lora_B.shape[0], bias=False, device="meta")
        check_shape(position, described, path, shape)
        down, up = lora_A.T.double().cpu(), _scaling(lora, path) * lora_B.double().cpu()
        hidden, wide = (down, up) if position.heads_on_output else (up, down)
        blocks = wide.reshape(-1, described["head_dim"], wide.shape[1])
        if position.by_head:
            projections = blocks.unflatten(0, (-1, len(position.heads))).unbind(1)
        else:
            projections = blocks.split(position.heads)
        for row, part in zip(position.matrix_rows, projections, strict=True):
            parts[position.layer_row, row] = hidden, part
    layers, matrices = len(described["layers"]), len(described["roles"])
    columns = [[parts[layer, matrix] for layer in range(layers)] for matrix in range(matrices)]
    return SlicedTensor(
        hidden=[_stacked([hidden for hidden, _ in column]) for column in columns],
        wide=[_stacked([wide for _, wide in column]) for column in columns],
        heads=described["heads"],
    )


def _stacked(matrices: list[Tensor]) -> Tensor:
    """Stack over layers; modules of a smaller rank get columns of zeros."""
    padded = pad_sequence([matrix.movedim(-1, 0) for matrix in matrices], batch_first=True)
    return padded.movedim(1, -1).contiguous()


def _scaling(lora: LoraConfig, path: str) -> float:
    """Return what PEFT multiplies a module's update by."""
    ranks, alphas = lora.rank_pattern or {}, lora.alpha_pattern or {}
    rank = ranks.get(get_pattern_key(list(ranks), path), lora.r)
    alpha = alphas.get(get_pattern_key(list(alphas), path), lora.lora_alpha)
    return alpha / (rank**0.5 if lora.use_rslora else rank)
