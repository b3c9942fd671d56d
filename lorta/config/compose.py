"""From command-line overrides to resolved settings: Hydra's grammar and composition, nothing of Hydra past this file.

Every override is checked on its own first, so that one message can list all problems. Choices of configuration groups
are composed once per distinct combination; plain values are then set on copies, which is what Hydra itself does after
composing (a sweep of 120 cells takes about a second instead of 26).
"""

import fnmatch
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra import initialize_config_dir
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType, QuotedString, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lorta.config.choices import group_file, group_options
from lorta.config.grammar import as_word, explain
from lorta.config.identity import FORMER_KEYS, SEEDS, present_key, with_present_keys
from lorta.config.places import own_folders
from lorta.config.suggestions import did_you_mean
from lorta.config.yaml_files import read_mapping, yaml_sentence

OF_RECIPES = ("sweep", "recipe")  # tables of an experiment that say what to run and what it is for; no settings
HYDRAS, LAUNCHERS = re.compile(r"hydra([./]|$)"), re.compile(r"hydra(/launcher$|\.launcher\.)")  # keys
ALONE = -1  # of a cell without siblings
REFERS_TO_SEED = re.compile(r"\$\{[^}]*seed")
Values = dict[str, list[Any]]  # key or group -> the values it takes in the grid


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


class Problems(list[str]):
    """Sentences about what forbids a run, each once; `notes` are those that forbid nothing.

    `replaced` are the groups whose default stands in for a choice that does not exist: no word about that default.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.replaced: set[str] = set()

    def note(self, sentence: str) -> None:
        """Append a note that is not there yet."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def add(self, sentence: str) -> None:
        """Append a sentence that is not there yet."""
        if sentence not in self:
            self.append(sentence)


def parse_overrides(arguments: Sequence[str], multirun: bool, folder: Path, problems: Problems) -> Values:
    """Return the values of every override. Sentences about what cannot be go to `problems`."""
    values: Values = {}
    for argument in arguments:
        try:
            override = _override(argument)
        except HydraException as error:
            problems.add(explain(argument, str(error).splitlines()[0]))
            continue
        _check_and_expand(override, argument, multirun, folder, values, problems)
    return values


def is_sweep(arguments: Sequence[str]) -> bool:
    """Return whether one of the words has several values."""
    return any(override.is_sweep_override() for _, override in _parsed(arguments))


def first_values(arguments: Sequence[str]) -> list[str]:
    """Return the words, of a sweep the first of its values: what Hydra's own flags can show of it."""
    parsed = dict(_parsed(arguments))
    first: list[str] = []
    for word in arguments:
        override = parsed.get(word)
        if override is None or not override.is_sweep_override() or isinstance(override.value(), Glob):
            first.append(word)
        else:
            first.append(as_word(word.partition("=")[0], _values(override, None)[0]))
    return first


def _parsed(arguments: Sequence[str]) -> Iterator[tuple[str, Override]]:
    """Yield the words that Hydra's grammar can read."""
    for word in arguments:
        with suppress(HydraException):
            yield word, _override(word)


@lru_cache
def _override(word: str) -> Override:
    """Return what Hydra's grammar reads in a word: a command asks twice. Raises HydraException."""
    return OverridesParser.create().parse_override(word)


def _check_and_expand(
    override: Override, argument: str, multirun: bool, folder: Path, values: Values, problems: Problems
) -> None:
    key = override.key_or_group
    groups = group_options(folder)
    if override.type == OverrideType.DEL:
        problems.add(f"{argument}: a key cannot be removed; every key of conf/config.yaml is needed")
    elif HYDRAS.match(key) and not LAUNCHERS.match(key):
        problems.add(f"{argument}: this harness plans its own sweeps; of hydra only hydra/launcher has an effect")
    elif not key:
        problems.add(f"{argument}: the key is missing in front of the =")
    elif key in values:
        problems.add(f"{argument}: {key} is given twice")
    elif override.package is not None:
        problems.add(f"{argument}: @{override.package} has no effect here: leave it out")
    elif override.value_type == ValueType.INTERVAL_SWEEP:
        problems.add(f"{argument}: an interval has no values of its own: name them with -m ({key}=1,2,3 or range(1,4))")
    else:
        expanded = _values(override, groups.get(key))
        if override.is_sweep_override() and not multirun:
            problems.add(f"{argument}: several values need -m (a sweep)")
        elif not expanded:
            hint = did_you_mean("", groups[key]) if key in groups else "; name values, such as 4,8 or range(1,4)"
            problems.add(f"{argument}: matches nothing{hint}")
        if key in groups:
            expanded = _known_choices(key, expanded, groups[key], folder, problems)
        if expanded:
            values[key] = expanded
        else:  # the default stands in, so that everything else is still checked
            problems.replaced.add(key)


def _values(override: Override, options: list[str] | None) -> list[Any]:
    if not override.is_sweep_override():
        return [override.value()]
    value = override.value()
    if isinstance(value, Glob):  # only the tasks and adapters themselves, no suites of them
        names = [option for option in options or [] if any(fnmatch.fnmatch(option, p) for p in value.include)]
        return [name for name in names if not any(fnmatch.fnmatch(name, p) for p in value.exclude)]
    return [item.text if isinstance(item, QuotedString) else item for item in override.sweep_iterator()]


def _known_choices(group: str, asked_for: list[Any], options: list[str], folder: Path, problems: Problems) -> list[Any]:
    """Return the choices that exist, suites such as task=glue replaced by their members."""
    choices: list[Any] = []
    for choice in asked_for:
        if choice is None and group == "experiment":
            choices.append(choice)
        elif str(choice) not in options:
            problems.add(f"{group}={choice}: no such {group}{did_you_mean(str(choice), options)}")
        else:
            try:
                file = group_file(folder, group, str(choice))
                choices += _suite(file) or [choice]
                if file.is_relative_to(folder):
                    continue
                if sentence := _other_name(group, str(choice), file):
                    problems.add(sentence)
            except ValueError as error:
                problems.add(str(error))
    return list(dict.fromkeys(choices))


def _other_name(group: str, choice: str, file: Path) -> str | None:
    """Return what is wrong with the `name` of a user's own file: tables would call it something else, or another's."""
    name = read_mapping(file).get("name")
    if group not in ("adapter", "model", "task") or name is None or name == choice or "${" in str(name):
        return None
    return f"{file}: its name is {name}, and it is chosen as {group}={choice}: write `name: {choice}`"


@lru_cache
def _suite(file: Path) -> list[str]:
    return list(read_mapping(file).get("suite", []))


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
            return self._loader._compose_config_from_defaults_list(defaults.defaults, self._files)
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
