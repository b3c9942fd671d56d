"""YAML files as users write them: what is wrong with one is a sentence with file, line and remedy."""

from pathlib import Path
from typing import Any

import yaml


def read_mapping(file: Path) -> dict[str, Any]:
    """Return a YAML file's keys and values, none for an empty file. Raises ValueError for anything else."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error.reason}): save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise ValueError(yaml_sentence(error, file)) from error
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"{file}: must hold keys and values (KEY: VALUE), and holds {_kind(content)}")
    return content or {}


def read_value(word: str) -> Any:
    """Return the value of KEY=VALUE, read as YAML. Raises ValueError."""
    try:
        return yaml.safe_load(word.partition("=")[2])
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", error)
        raise ValueError(f"{word}: the value is not YAML ({problem}): put it in quotes") from error


def yaml_sentence(error: yaml.YAMLError, file: Path | None = None) -> str:
    """Return one sentence with the place of an error in a YAML file."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{file or 'a YAML file'}: not YAML ({' '.join(str(error).split())})"
    problem = str(getattr(error, "problem", None) or error)
    where = f"{file or mark.name}, line {mark.line + 1}"
    if "'\\t'" in problem:
        return f"{where}: a tab: YAML is indented by spaces alone"
    return f"{where}: not YAML ({problem})"


def _kind(content: object) -> str:
    return "a list" if isinstance(content, list) else f"one value, {str(content)[:40]!r}"
