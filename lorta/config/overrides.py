"""From the words of a command line to the values of each key, read by Hydra's grammar. No composition.

Every word is checked on its own, so that one message can list all problems.
"""

import fnmatch
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType, QuotedString, ValueType
from hydra.errors import HydraException

from lorta.config.choices import group_file, group_options
from lorta.config.grammar import as_word, explain
from lorta.config.suggestions import did_you_mean
from lorta.config.yaml_files import read_mapping

HYDRAS, LAUNCHERS = re.compile(r"hydra([./]|$)"), re.compile(r"hydra(/launcher$|\.launcher\.)")  # keys
Values = dict[str, list[Any]]  # key or group -> the values it takes in the grid


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
