"""Values of an adapter's settings that no method can use, known by the names of their keys. No torch.

Libraries find out when a model is attached, after the plan, or never: PEFT chooses modules itself where none is named.
"""

import re
from collections.abc import Mapping
from typing import Any

from lorta.config.signatures import Open, keys_of

SCALES = re.compile(r"(lora_)?alpha")
PROBABILITY = re.compile(r".*dropout.*")
RANKS, SIZES = re.compile(r"r|ranks?"), re.compile(r"(.*_)?(r|ranks?)")


def range_problems(node: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each value that a rank, a scale or a probability of a node cannot have."""
    sentences: list[str] = []
    in_blocks = any("block_size" in key for key in node)  # OFT takes r=0 beside the size of its blocks
    for key, value in node.items():
        given = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
        if PROBABILITY.fullmatch(key) and not all(_is_number(one) and 0 <= one < 1 for one in given):
            sentences.append(f"{key}={value}: a probability, at least 0 and below 1, is needed")
        least = 1 if RANKS.fullmatch(key) and not in_blocks else 0  # a part of a rank may be 0: GraLoRA's hybrid_r
        numbers = [one for one in given if _is_number(one)]
        if SCALES.fullmatch(key) and 0 in numbers:
            sentences.append(f"{key}={value}: the update would be 0 times anything: give another number")
        if SIZES.fullmatch(key) and not all(isinstance(one, int) and one >= least for one in numbers):
            sentences.append(f"{key}={value}: a whole number, {least} or more, is needed")
    return sentences


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def projection_problems(node: Mapping[str, Any]) -> list[str]:
    """Return a sentence for projections that are named twice, and for a method of projections without any."""
    projections = node.get("projections")
    if not isinstance(projections, list):
        return []
    if twice := sorted({str(name) for name in projections if projections.count(name) > 1}):
        return [f"projections={projections}: {', '.join(twice)} is named twice: name each once"]
    if projections or not _needs_projections(node):
        return []
    return ["projections=[]: no module would be adapted, or those that the library chooses: name some, such as [q,v]"]


def _needs_projections(node: Mapping[str, Any]) -> bool:
    """Return whether a method adapts modules that neither its configuration nor its class chooses."""
    config = node.get("config")
    if not isinstance(config, Mapping) or config.get("target_modules") is not None:
        return False
    try:
        keys = keys_of(str(config.get("_target_")))
        return "target_modules" in keys and "token_indices" not in keys  # of trained embeddings
    except Open:
        return True
    except ValueError:  # said of the class itself
        return False
