"""Weights that a checkpoint lacks. The library draws them at random, so a run has to train and save them, or refuse."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from lorta.geometry import Geometry
from lorta.models.locate import ModelFiles

if TYPE_CHECKING:
    from torch import nn


def with_drawn_weights(
    geometry: Geometry, model: "nn.Module", missing: Iterable[str], files: ModelFiles
) -> tuple[Geometry, tuple[str, ...]]:
    """Take modules that a classifier's checkpoint lacks, such as BERT's pooler, into the head.

    Args:
        geometry: of the model, with the usual head.
        model: as it was loaded.
        missing: full names of parameters that the checkpoint lacks.
        files: where the checkpoint is.

    Returns:
        The geometry with the larger head, and the names of the drawn parameters outside the usual one.

    Raises:
        ValueError: embeddings, projections or normalisation layers are missing, or quantised weights: no head can be
            made of these.
    """
    architecture = geometry.architecture
    drawn = tuple(sorted(name for name in missing if not architecture.in_head(name)))
    modules = tuple(dict.fromkeys(name.rpartition(".")[0] for name in drawn))
    if any(not _can_be_head(geometry, model, path) for path in modules) or (drawn and files.quantization):
        raise ValueError(lacking(files, drawn))
    pooler = architecture.pooler and not any(".pooler." in name for name in drawn)
    return replace(
        geometry, architecture=replace(architecture, head=(*modules, *architecture.head), pooler=pooler)
    ), drawn


def _can_be_head(geometry: Geometry, model: "nn.Module", path: str) -> bool:
    from torch import nn

    part_of_backbone = geometry.locate(path) is not None or re.fullmatch(geometry.architecture.norms, path)
    return bool(path) and not part_of_backbone and not isinstance(model.get_submodule(path), nn.Embedding)


def lacking(files: ModelFiles, names: Iterable[str]) -> str:
    """Return the sentence that refuses a checkpoint without some of the backbone's parameters."""
    names = sorted(names)
    more = ", ..." if len(names) > 3 else ""
    return (
        f"{files.location}: the checkpoint lacks {len(names)} of the model's weights ({', '.join(names[:3])}{more}), "
        "which would be drawn at random and stay so: use a complete checkpoint of this architecture, unquantised if it "
        "lacks a pooler only."
    )
