"""From a mapping with `_target_` to the object it names: how YAML registers code. Workers need no Hydra."""

import pkgutil
from collections.abc import Mapping
from typing import Any

from lorta.config.moved import MOVED


def resolve(dotted_path: str) -> Any:
    """Import what `package.module.name` names. Raises ValueError with the path when it cannot be found."""
    try:
        return pkgutil.resolve_name(MOVED.get(dotted_path, dotted_path))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import '{dotted_path}': {error}") from error


def build(node: Mapping[str, Any], **more: Any) -> Any:
    """Call the node's `_target_` with the node's other keys and `more`; nested nodes are left as mappings.

    Raises ValueError when the target cannot be imported or does not take these keys.
    """
    arguments = {key: value for key, value in node.items() if not key.startswith("_")}
    if not isinstance(node.get("_target_"), str):
        raise ValueError(f"{node.get('name', 'a group')}: its file needs `_target_`, the class that it is for")
    target = resolve(node["_target_"])
    try:
        return target(**arguments, **more)
    except TypeError as error:
        raise ValueError(f"{node['_target_']} refuses its settings: {error}") from error
