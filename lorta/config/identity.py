"""A run's identity: the names and values that can move a number, and nothing about where code or files lie.

Rules. (1) A key that names code (`_target_`, a hook) is left out: moving or renaming a class changes no identity, its
`name` does. (2) A key at its default, the one of the class that reads it, is left out: so a key can be added to a class
without touching earlier runs. The default of a key can therefore never change (`tests/config/test_identity.py` keeps
them). (3) Keys of before have their present names. No torch.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined, from_json

from lorta.config.instantiate import resolve, trusting, trusts_all
from lorta.config.settings import DataSettings, ModelSettings, Settings, TrainerSettings
from lorta.records.canonical import sha256

SEPARATE_SEEDS = ("init_seed", "order_seed", "dropout_seed")  # in a configuration only where they are not the seed
SEEDS = frozenset({"seed", *SEPARATE_SEEDS})  # what a cell leaves open
VERSION = 2  # of identities; 1: configurations with class paths, hashed as they were
NAMES_CODE = frozenset({"_target_", "prepare", "finish", "before_save", "callback"})
# of an adapter: formulas, and what other keys refer to
UNSIGNED = frozenset(
    {"param_count", "unsupported_if", "count_changed", "init_presets", "learning_rate", "head_learning_rate"}
    | {"budget_param", "weight_decay", "load_with", "own_process"}
)
FORMER_KEYS = {  # section -> key of before -> key
    "adapter": {
        "count": "param_count",
        "refuses": "unsupported_if",
        "changed": "count_changed",
        "starts": "init_presets",
        "solve": "budget_param",
        "fit": "derived",
    },
    "data": {"hold_out": "holdout"},
    "tune": {"hold_out": "holdout"},
}
FORMER_COUNTS = {"each": "per_module", "once": "shared"}
SECTIONS: Mapping[str, type[Settings]] = {"model": ModelSettings, "trainer": TrainerSettings, "data": DataSettings}
LEGACY_HEAD = 64  # bytes of a record in which its identity's version stands, if it has one


def with_present_keys(section: str, values: Any) -> Any:
    """Return a section of a configuration with the keys of before under their present names."""
    former = FORMER_KEYS.get(section)
    if not former or not isinstance(values, Mapping):
        return values
    present = {former.get(key, key): value for key, value in values.items()}
    if isinstance(count := present.get("param_count"), Mapping):
        present["param_count"] = {FORMER_COUNTS.get(key, key): value for key, value in count.items()}
    return present


def present_key(dotted: str) -> str:
    """Return the present name of a dotted key such as data.hold_out."""
    section, _, key = dotted.partition(".")
    return f"{section}.{FORMER_KEYS.get(section, {}).get(key, key)}" if key else dotted


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names and values of a run's configuration, or of a cell's (which has no seed).

    Args:
        config: the groups adapter, model, task, trainer, data and fingerprints, and the seed of a run, resolved; as a
            record of any version has them.
    """
    parts = {name: with_present_keys(name, part) for name, part in config.items()}
    if "adapter" in parts:
        parts["adapter"] = {key: value for key, value in parts["adapter"].items() if key not in UNSIGNED}
    for name, part in parts.items():
        if isinstance(part, Mapping):
            parts[name] = _names_and_values(_without_defaults(part, _defaults(name, part)))
    return parts


def _defaults(section: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the defaults of the class that reads a section."""
    if section in SECTIONS:
        return section_defaults(SECTIONS[section])
    return _defaults_of(values.get("_target_"), trusts_all())


def _names_and_values(node: Any) -> Any:
    """Return a node without the keys that name code, at every depth."""
    if isinstance(node, list):
        return [_names_and_values(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    return {key: _names_and_values(value) for key, value in node.items() if key not in NAMES_CODE}


def _without_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    missing = object()
    return {key: value for key, value in values.items() if defaults.get(key, missing) != value}


@lru_cache
def section_defaults(kind: type[Settings]) -> dict[str, Any]:
    """Return the defaults of a section of settings: of the keys that are younger than the first records."""
    fields = kind.model_fields.items()
    return {name: field.default for name, field in fields if field.default is not PydanticUndefined}


@lru_cache
def _defaults_of(target: str | None, trusted: bool) -> dict[str, Any]:
    """Return the defaults of an adapter's or task's class as JSON values; none where the class is not here.

    `trusted` is there for the cache: what may be imported changes the answer.
    """
    if target is None:
        return {}
    try:
        kind = resolve(target)
    except ValueError:  # a record from elsewhere: what was recorded stands as it is
        return {}
    return {item.name: _default(item) for item in _defaulted(kind)}


def _defaulted(kind: Any) -> list[Any]:
    items = fields(kind) if is_dataclass(kind) else ()
    return [item for item in items if item.default is not MISSING or item.default_factory is not MISSING]


def _default(item: Any) -> Any:
    default = item.default_factory() if item.default is MISSING else item.default
    return list(default) if isinstance(default, tuple) else default


def run_id(config: Mapping[str, Any]) -> str:
    """Return the 12 hexadecimal digits of a run's configuration (with its seed)."""
    return sha256(identity(config))[:12]


def cell_id(config: Mapping[str, Any]) -> str:
    """Return the 12 hexadecimal digits of a configuration whatever its seed."""
    return sha256(identity({key: value for key, value in config.items() if key not in SEEDS}))[:12]


def earlier_runs(root: Path, beside: frozenset[str]) -> dict[str, str]:
    """Return today's run id -> folder name, of the finished runs in a store that were recorded under an older identity.

    `beside` are names of folders that need no look. A record that cannot be read is left out.
    """
    named: dict[str, str] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        config = None if folder.name in beside else _earlier_config(folder / "record.json")
        if config is not None:
            with trusting():
                named[run_id(config)] = folder.name
    return named


def _earlier_config(file: Path) -> dict[str, Any] | None:
    try:
        with file.open("rb") as stream:
            head = stream.read(LEGACY_HEAD)
            if not head or b'"identity_version"' in head:
                return None
            record = from_json(head + stream.read())
        ended = record["status"] == "success" or _diverged_trial(record)
        return record["config"] if ended else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _diverged_trial(record: Mapping[str, Any]) -> bool:
    """Return whether a record is of a trial whose loss diverged: a result of a search."""
    is_trial = any(record["config"]["data"].get(key) is not None for key in ("hold_out", "holdout"))
    return bool(is_trial and record["status"] == "failed" and (record["failure"] or {}).get("kind") == "nan")
