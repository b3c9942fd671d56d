"""From the values of each key to resolved settings, by Hydra's composition: no other file composes.

Choices of configuration groups are composed once per distinct combination; plain values are then set on copies, which
is what Hydra itself does after composing (a sweep of 120 cells takes about a second instead of 26).
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra import initialize_config_dir
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lorta.config.choices import group_options
from lorta.config.grammar import as_word
from lorta.config.identity import FORMER_KEYS, SEEDS, present_key, with_present_keys
from lorta.config.overrides import Problems, Values
from lorta.config.places import own_folders
from lorta.config.suggestions import did_you_mean
from lorta.config.yaml_files import yaml_sentence

OF_RECIPES = ("sweep", "recipe")  # tables of an experiment that say what to run and what it is for; no settings
ALONE = -1  # of a cell without siblings
REFERS_TO_SEED = re.compile(r"\$\{[^}]*seed")


@dataclass(frozen=True)
class Cell:
    """One resolved configuration, how it was asked for, and what it was resolved from."""

    config: dict[str, Any]
    choices: dict[str, str]
    overrides: tuple[str, ...]
    base: DictConfig
    assignment: Mapping[str, Any]
    siblings: int = (
        ALONE  # the same number for cells of one grid that differ in their seeds only, which nothing refers to
    )

    def has(self, key: str) -> bool:
        """Return whether a dotted key is there."""
        return key in _dotted_keys(self.config)

    def node(self, name: str, key: str, value: Any) -> dict[str, Any]:
        """Return one top-level node as it would be with another value of a scalar `key`."""
        return _with_scalar(self.base, self.assignment, key, value, name)

    def with_value(self, key: str, value: Any) -> dict[str, Any]:
        """Return the configuration with a scalar set as if it had been typed."""
        return _settings_of(_with_scalar(self.base, self.assignment, key, value))


def compose_cells(values: Values, folder: Path, problems: Problems) -> list[Cell]:
    """Return one cell for every combination of values, in the order in which they were given."""
    cells: list[Cell] = []
    for combination, base, plain in _compositions(values, folder, problems):
        choices = {key: str(value) for key, value in combination.items()}
        resolver = _Resolver(base, combination, problems)
        for assignment in _combinations(plain):
            config, siblings = resolver.resolve(assignment)
            if config is not None:
                given = {key: value for key, value in (combination | assignment).items() if key in values}
                overrides = tuple(as_word(key, value) for key, value in given.items())
                cells.append(Cell(config, choices, overrides, base, assignment, siblings))
    return cells


def check_keys(values: Values, folder: Path, problems: Problems) -> None:
    """Add a problem for each key that some combination of choices lacks; half the time of composing cells."""
    for _ in _compositions(values, folder, problems):
        pass


def _compositions(
    values: Values, folder: Path, problems: Problems
) -> Iterator[tuple[dict[str, Any], DictConfig, Values]]:
    """Yield every combination of choices, what it is composed to, and the plain values whose keys are there."""
    groups = group_options(folder)
    choices_of = {key: chosen for key, chosen in values.items() if key in groups}
    plain = {key: chosen for key, chosen in values.items() if key not in groups}
    with initialize_config_dir(str(folder), version_base="1.3"):
        composer = _Composer()
        for combination in _combinations(choices_of):
            if (base := composer.compose(combination, problems)) is not None:
                yield combination, base, _existing(plain, base, combination, problems)


def combinations_of_choices(values: Values, folder: Path) -> int:
    """Return how many times a grid is composed: the combinations of its groups' choices."""
    groups = group_options(folder)
    return math.prod(len(chosen) for key, chosen in values.items() if key in groups)


def _combinations(values: Values) -> Iterator[dict[str, Any]]:
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


class _Composer:
    """`hydra.compose` without Hydra's own settings, which take five sixths of its time: 10 ms a combination, not 60.

    These two functions are not public, hence the exact pin of hydra-core and a test that compares with `hydra.compose`.
    """

    def __init__(self) -> None:
        self._loader: Any = GlobalHydra.instance().config_loader()
        search_path = self._loader.get_search_path()
        for folder in own_folders():
            search_path.prepend("own", f"file://{folder}", anchor="schema")  # which must stand last
        self._files = CachingConfigRepository(ConfigRepository(search_path))
        self._parser = OverridesParser.create()

    def compose(self, choices: Mapping[str, Any], problems: Problems) -> DictConfig | None:
        """Return the configuration of a combination of choices, unresolved; None when there is a sentence about it."""
        words = [f"{group}={choice}" for group, choice in choices.items() if choice is not None]
        overrides = self._parser.parse_overrides(words)
        try:
            defaults = create_defaults_list(self._files, "config", overrides, prepend_hydra=False, skip_missing=False)
            composed = self._loader._compose_config_from_defaults_list(defaults.defaults, self._files)
            return composed.copy()  # files are read once: what one file alone has would be moved into the next one
        except (HydraException, OmegaConfBaseException) as error:
            problems.add(f"{' '.join(words)}: {_own_words(error, choices)}")
        except yaml.YAMLError as error:  # of a file that the chosen ones build on
            problems.add(yaml_sentence(error))
        return None


def _existing(plain: Values, base: DictConfig, choices: Mapping[str, Any], problems: Problems) -> Values:
    """Return the values whose keys exist in this combination, so that they are checked beside the others' problems."""
    known = _dotted_keys(OmegaConf.to_container(base, resolve=False))
    with_choices = "".join(f" with {group}={choice}" for group, choice in choices.items() if group == "adapter")
    existing: Values = {}
    for key, values in plain.items():
        present = key if key in known else present_key(key)
        if present != key and present in known:
            problems.note(f"{key} is now called {present}")
        if present in known:
            existing[present] = values
        elif key.partition(".")[0] not in problems.replaced:
            where = with_choices if key.startswith("adapter.") else ""
            problems.add(f"{key}: no such key{where}{did_you_mean(key, _siblings(key, known))}")
    return existing


def _siblings(key: str, known: Sequence[str]) -> list[str]:
    """Return the keys to name when `key` is unknown: those of its parent, or of the top level."""
    parent = key.rpartition(".")[0]
    depth = key.count(".") if parent in known else 0
    prefix = f"{parent}." if depth else ""
    return [name for name in known if name.startswith(prefix) and name.count(".") == depth]


def _dotted_keys(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    keys: list[str] = []
    for key, value in node.items():
        keys += [f"{prefix}{key}", *_dotted_keys(value, f"{prefix}{key}.")]
    return keys


class _Resolver:
    """Resolves the assignments to one composition: those that differ in their seeds only at once, where that is safe.

    A seed is a number that nothing else is made of, unless a file or a typed value refers to it.
    """

    numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, base: DictConfig, choices: Mapping[str, Any], problems: Problems) -> None:
        self.base, self.choices, self.problems = base, choices, problems
        self._resolved: dict[tuple[str, ...], tuple[dict[str, Any] | None, int]] = {}
        self._refers = _refers_to_seed(OmegaConf.to_container(base, resolve=False))

    def resolve(self, assignment: Mapping[str, Any]) -> tuple[dict[str, Any] | None, int]:
        """Return the plain configuration, None with a sentence among the problems, and the number of its siblings."""
        seeds = {key: value for key, value in assignment.items() if key in SEEDS}
        others = {key: value for key, value in assignment.items() if key not in SEEDS}
        if self._refers or _refers_to_seed(others) or not all(type(seed) is int for seed in seeds.values()):
            return _resolve(self.base, assignment, self.choices, self.problems), ALONE
        key = tuple(map(repr, others.values()))
        if key not in self._resolved:
            config = _resolve(self.base, assignment, self.choices, self.problems)
            self._resolved[key] = config, next(self.numbers)
        config, siblings = self._resolved[key]
        return config and {**config, **seeds}, siblings


def _refers_to_seed(values: Any) -> bool:
    return REFERS_TO_SEED.search(repr(values)) is not None


def _resolve(
    base: DictConfig, assignment: Mapping[str, Any], choices: Mapping[str, Any], problems: Problems
) -> dict[str, Any] | None:
    """Return the plain resolved configuration."""
    try:
        resolved: Any = OmegaConf.to_container(_assigned(base, assignment), resolve=True)
    except OmegaConfBaseException as error:
        given = " ".join(f"{key}={value}" for key, value in (assignment or choices).items())
        problems.add(f"{given}: {_own_words(error, choices, base)}")
        return None
    for section, former in FORMER_KEYS.items():
        for key in former.keys() & (resolved.get(section) or {}).keys():
            problems.note(f"{section}.{key} is now called {section}.{former[key]}: rename it in its YAML file")
    return _settings_of(resolved)


MISSING_KEY = re.compile(r"Interpolation key '([\w.]+)' not found")


def _own_words(error: Exception, choices: Mapping[str, Any], base: DictConfig | None = None) -> str:
    """Return what an error of OmegaConf means; `base` has the keys that there are."""
    said = str(error).splitlines()[0]
    if (absent := MISSING_KEY.search(said)) is None:
        return said
    key = absent[1]
    group, _, rest = key.partition(".")
    if rest and group in choices:
        return f"its file lacks the key `{rest}`, which other settings refer to"
    where = getattr(error, "full_key", None)
    known = [] if base is None else _dotted_keys(OmegaConf.to_container(base, resolve=False))
    hint = did_you_mean(key, known) if known else ""
    hint = "" if hint.startswith("; there are") else hint
    return f"{f'{where}: ' if where else ''}${{{key}}} refers to a key that does not exist{hint}"


def _assigned(base: DictConfig, assignment: Mapping[str, Any]) -> DictConfig:
    """Return `base` with the values set; all assignments to one `base` set the same keys.

    So a scalar can be set in place, for the next one to replace it; a list or mapping would be merged with it.
    """
    structured = any(isinstance(value, list | dict) for value in assignment.values())
    config = base.copy() if structured else base
    for key, value in assignment.items():
        OmegaConf.update(config, key, value, merge=True, force_add=True)
    return config


def _with_scalar(base: DictConfig, assignment: Mapping[str, Any], key: str, value: Any, name: str = "") -> Any:
    """Return the configuration, or its node `name`, resolved with one more value, and leave `base` without it."""
    config = _assigned(base, assignment)
    parent, _, last = key.rpartition(".")
    holder: Any = OmegaConf.select(config, parent) if parent else config
    before = holder._get_node(last)._value()  # "${...}" as it stands, and without a copy of everything
    OmegaConf.update(config, key, value)
    try:
        resolved = OmegaConf.to_container(config[name] if name else config, resolve=True)
        return with_present_keys(name, resolved) if name else resolved
    finally:
        OmegaConf.update(config, key, before)


def _settings_of(resolved: Any) -> dict[str, Any]:
    assert isinstance(resolved, dict)
    return {str(key): with_present_keys(str(key), value) for key, value in resolved.items() if key not in OF_RECIPES}
