"""Files of committed suites, each with its SHA-256 in SHA256SUMS beside it, in the form of `sha256sum --check`."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from lorta.records.record import RunRecord
from lorta.records.store import export, write_atomically

SUMS_NAME = "SHA256SUMS"
MOST_PLAIN_RECORDS = 100  # a larger suite is exported compressed


def seal(file: Path, instead_of: Path | None = None) -> None:
    """Write the checksum of a file into SHA256SUMS of its folder, and drop that of the file it stands in for."""
    sums = _read(file.parent)
    if instead_of is not None:
        sums.pop(instead_of.name, None)
    sums[file.name] = _sum(file)
    write_atomically(file.parent / SUMS_NAME, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def require_unchanged(file: Path) -> None:
    """Raise ValueError for a file that is not as it was collected, or of which nothing is known."""
    expected = _read(file.parent).get(file.name)
    if expected is None:
        raise ValueError(
            f"{file}: {file.parent / SUMS_NAME} does not name it, so nothing says that it is as it was collected; take "
            "both from the same commit, or run `lorta collect` again"
        )
    if expected != _sum(file):
        raise ValueError(
            f"{file} was changed after it was collected: its SHA-256 is not that of {file.parent / SUMS_NAME}; take "
            "both from the same commit"
        )


def export_suite(records: Sequence[RunRecord], results: Path, name: str) -> Path:
    """Write records to RESULTS/records/NAME.jsonl, compressed when there are many, and return the path.

    A file of the same suite in the other form is removed. Raises ValueError for a name that is no file name.
    """
    if Path(name).name != name:
        raise ValueError(f"a suite's name must be a file name without folders, got {name!r}")
    plain, compressed = (results / "records" / f"{name}{ending}" for ending in (".jsonl", ".jsonl.gz"))
    path, other = (plain, compressed) if len(records) <= MOST_PLAIN_RECORDS else (compressed, plain)
    export(records, path)
    other.unlink(missing_ok=True)
    seal(path, instead_of=other)
    return path


def suite_sums(results: Path, name: str) -> dict[Path, str]:
    """Return the SHA-256 of each file of a suite that is there: its records, and what stands beside them."""
    kinds = [results / kind for kind in ("records", "predictions", "histories")]
    files = [folder / f"{name}{ending}" for folder in kinds for ending in (".jsonl", ".jsonl.gz")]
    return {file: _sum(file) for file in files if file.is_file()}


def replaced_sentence(before: Mapping[Path, str], after: Mapping[Path, str]) -> str | None:
    """Return which files of before are gone or have other bytes, of two results of `suite_sums`; None where none."""
    changed = [str(file) for file, digest in before.items() if after.get(file) != digest]
    return f"in place of the ones of before: {', '.join(changed)}" if changed else None


def _sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read(folder: Path) -> dict[str, str]:
    """Return file name -> checksum; nothing where there is no such file. Raises ValueError for anything else in it."""
    path, sums = folder / SUMS_NAME, dict[str, str]()
    for number, line in enumerate(path.read_text().splitlines() if path.is_file() else (), 1):
        checksum, separator, name = line.partition("  ")
        if not separator or len(checksum) != 64 or not name:
            raise ValueError(f"{path}, line {number}: a SHA-256, two spaces and a file name are needed, got {line!r}")
        sums[name] = checksum
    return sums
