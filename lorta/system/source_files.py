"""From which files of code a run's numbers come: its method's, its task's, and all that these import. No torch.

What only plans, records, draws or prints is left out: a changed table moves no number.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lorta.config.identity import NAMES_CODE
from lorta.config.places import CHECKOUT, PACKAGE, ROOT, own_folders
from lorta.system import provenance

OURS = ("lorta", "baselines", "experiments")
ALWAYS = ("lorta.runner.execute",)  # what runs any method on any task
MOVE_NO_NUMBER = (
    *("lorta.analysis", "lorta.cli", "lorta.config", "lorta.diagnostics", "lorta.drift", "lorta.launch"),
    *("lorta.planning", "lorta.records", "lorta.reporting", "lorta.status", "lorta.system"),
    *("lorta.runner.os_errors", "lorta.runner.record_builder"),
)
IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n]+)|import[ \t]+([\w.]+))", re.MULTILINE
)
SHOWN = 3  # files in a phrase


def roots_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the dotted paths of code that a run's configuration names for its method and its task."""
    return tuple(sorted({*_named(config.get("adapter")), *_named(config.get("task"))}))


def _named(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _named(item)
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if key in NAMES_CODE and isinstance(value, str):
                yield value
            else:
                yield from _named(value)


@lru_cache
def source_files(roots: tuple[str, ...]) -> Mapping[str, str]:
    """Map each file that the numbers come from to its SHA-256; names are relative to the checkout or their folder."""
    waiting, seen = [*ALWAYS, *roots], set[Path]()
    digests: dict[str, str] = {}
    while waiting:
        place = _file_of(waiting.pop())
        if place is None or place[0] in seen:
            continue
        file, folder = place
        seen.add(file)
        text = file.read_text(encoding="utf-8")
        digests[file.relative_to(folder).as_posix()] = hashlib.sha256(text.encode()).hexdigest()
        waiting += _imports(text)
    return dict(sorted(digests.items()))


def _imports(text: str) -> Iterator[str]:
    for module, names, plain in IMPORT.findall(text):
        yield plain or module
        yield from (f"{module}.{name}" for name in re.findall(r"\w+", names) if module)


def _file_of(dotted: str) -> tuple[Path, Path] | None:
    """Return the file of a module, or of what it holds, and the folder it is searched in; None for others' code."""
    if any(dotted == package or dotted.startswith(f"{package}.") for package in MOVE_NO_NUMBER):
        return None
    folders = (PACKAGE.parent, ROOT) if dotted.split(".")[0] in OURS else own_folders()
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        for folder in folders:
            path = folder.joinpath(*parts[:length])
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.is_file():
                    return file, folder
    return None


def sources_sha256(config: Mapping[str, Any]) -> str:
    """Return one SHA-256 of all files that a run's numbers come from."""
    return _digest(roots_of(config))


@lru_cache
def _digest(roots: tuple[str, ...]) -> str:
    files = source_files(roots)
    return hashlib.sha256("".join(f"{name} {value}\n" for name, value in files.items()).encode()).hexdigest()


def other_code(code: Mapping[str, Any] | None, config: Mapping[str, Any]) -> str | None:
    """Compare the code that a record is of with this code.

    Args:
        code: the record's section of that name.
        config: the record's configuration.

    Returns:
        Commit and differing files in a phrase, "unknown code" where nothing is recorded; None for the same code, as far
        as it moves the run's numbers.
    """
    code, roots = code or {}, roots_of(config)
    recorded, commit = code.get("sources_sha256"), code.get("git_sha")
    if recorded is not None and recorded == _digest(roots):
        return None
    if commit is None:
        return "unknown code" if recorded is None else "other code, of no commit"
    commit = str(commit)  # whoever wrote the record
    differing = _changed_since(commit)
    named = None if differing is None else [name for name in source_files(roots) if name in differing]
    if recorded is None and named == [] and not code.get("git_dirty"):
        return None
    changes = " with uncommitted changes" if code.get("git_dirty") else ""
    return f"other code, commit {commit[:12]}{changes} ({_listed(named)})"


def _listed(files: list[str] | None) -> str:
    if not files:
        return "which files differ is not known"
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return f"{', '.join(files[:SHOWN])}{more} differ{'s' if len(files) == 1 else ''}"


@lru_cache
def _changed_since(commit: str) -> frozenset[str] | None:
    """Return the files of code that differ from a commit, None where git does not know it."""
    if CHECKOUT is None:
        return None
    listed = provenance.git("diff", "--name-only", commit, "--", *provenance.CODE_PATHS)
    return None if listed is None else frozenset(listed.splitlines())


def other_code_sentences(phrases: Sequence[str | None]) -> list[str]:
    """Return a sentence for each other code that finished runs are of, the most frequent first.

    `phrases` are those of `other_code`, one a run.
    """
    counts = Counter(phrase for phrase in phrases if phrase).most_common()
    lines = [f"{count} of {len(phrases)} done runs were done by {phrase}" for phrase, count in counts[:SHOWN]]
    if len(counts) > SHOWN:
        lines.append(f"{sum(count for _, count in counts[SHOWN:])} more by {len(counts) - SHOWN} others")
    return [f"{line}: runtime.force=true runs them again" for line in lines]
