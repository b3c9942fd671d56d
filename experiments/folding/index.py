"""The structures of a local folder: FOLDER/protein, with or without an index, checked file by file while planning.

With `protein/index.tsv` (tab-separated) each row is one target: `file` (relative to `protein`) and `chain` are needed,
`sequence` (that may have more than the observed residues) and `sha256` are checked where they are given, and `split`
(train or validation) takes the place of a split by identity. Without an index, each chain of each structure file below
`protein` is one. No torch.
"""

import csv
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from experiments.files import require_data
from experiments.folding.chains import to_target
from experiments.folding.structures import Structure, is_structure, read_structure
from experiments.folding.target import Target

FOLDER, INDEX = "protein", "index.tsv"
NEEDED = ("file", "chain")
SIDES = ("train", "validation")
NO_FILE = "there is no such file."
MISSING, UNUSABLE = "the file is missing", "the structure cannot be used, targets.csv says why"
LONGEST = 1024  # residues; ESM-2 was trained on crops of 1,024 tokens (Lin et al. 2023, doi:10.1126/science.ade2574)


class Row(NamedTuple):
    """One wanted target."""

    file: str  # relative to the folder
    chain: str | None  # the author's name; None for every chain
    sequence: str | None
    sha256: str | None
    split: str | None = None


class Planned(NamedTuple):
    """All of a folder's targets, and what became of the rest."""

    targets: tuple[Target, ...]
    refused: tuple[tuple[str, str], ...]  # (file, sentence that names it): not a target
    remarks: tuple[tuple[str, str], ...]  # (target's name, sentence): a target, but not without a decision
    split: tuple[str, ...] | None = None  # train or validation for each target, where the index says so
    # (side where the index says so, why) for each of `refused`
    lost: tuple[tuple[str | None, str], ...] = ()


def plan_targets(root: str, longest: int = LONGEST) -> Planned:
    """Read and check every structure below ROOT/protein; `longest` is in residues.

    Raises ValueError where there is no such folder or no structure, for a faulty index, and, with all sentences, where
    no target is left.
    """
    folder = Path(root).expanduser() / FOLDER
    if not folder.is_dir():
        raise ValueError(f"data.root={root}: there is no folder {folder}; put structure files there.")
    require_biotite()
    rows = _rows(folder)
    stamps = tuple(_stamp(folder / row.file) for row in rows)
    planned = _read(folder, rows, stamps, longest)
    if not planned.targets:
        raise ValueError("\n".join(sentence for _, sentence in planned.refused))
    return planned


def require_both_sides(root: str, planned: Planned) -> None:
    """Raise ValueError where it is known, without a look at the sequences, that a side of the split would be empty."""
    folder = Path(root).expanduser() / FOLDER
    refused = "".join(f"\n{sentence}" for _, sentence in planned.refused)
    if planned.split is None and len(planned.targets) == 1:
        raise ValueError(f"{folder}: one target cannot be split into training and validation: add structures.{refused}")
    for side in SIDES:
        if planned.split is not None and side not in planned.split:
            count = len(planned.targets)
            raise ValueError(
                f"{folder / INDEX}: none of its {count} targets has {side} in the column split: "
                f"give some to each side, or leave the column out.{refused}"
            )


def require_biotite() -> None:
    """Raise ValueError with the remedy where `biotite` is missing: reading and scoring structures both need it."""
    from importlib.util import find_spec

    if find_spec("biotite") is None:
        raise ValueError("task=folding reads and scores structures with biotite: pip install 'lorta[folding]'.")


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        return file.stat().st_mtime_ns, file.stat().st_size
    except OSError:
        return None


def _rows(folder: Path) -> tuple[Row, ...]:
    index = folder / INDEX
    if index.is_file():
        return tuple(_index_rows(index))
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if is_structure(path))
    if not files:
        raise ValueError(f"{folder}: no {INDEX} and no structure file (.pdb, .ent, .cif, .mmcif, each also .gz).")
    return tuple(Row(file, None, None, None) for file in files)


def _index_rows(index: Path) -> Iterator[Row]:
    require_data(index)
    try:
        text = index.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{index}: cannot be read ({error}).") from error
    reader = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{index}: no column {' and no column '.join(missing)}; they are separated by tabs.")
    line = 1
    for line, cells in enumerate(reader, 2):
        file, *rest = (cells.get(name) or None for name in Row._fields)
        if file is None:
            raise ValueError(f"{index}, line {line}: no file.")
        if "split" in cells and cells["split"] not in SIDES:
            raise ValueError(f"{index}, line {line}: split must be {' or '.join(SIDES)}, got {cells['split']!r}.")
        yield Row(file, *rest)
    if line == 1:
        raise ValueError(f"{index}: no rows.")


@lru_cache(maxsize=4)  # a plan is made once for each run of a sweep; `stamps` tell whether a file has changed
def _read(folder: Path, rows: tuple[Row, ...], stamps: tuple[tuple[int, int] | None, ...], longest: int) -> Planned:
    targets: dict[str, Target] = {}
    sides: list[str | None] = []
    refused: list[tuple[str, str]] = []
    lost: list[tuple[str | None, str]] = []
    remarks: list[tuple[str, str]] = []
    for row in rows:
        for name, target in _row_targets(folder, row, longest):
            if isinstance(target, str):
                refused.append((name, target))
                lost.append((row.split, MISSING if target.endswith(NO_FILE) else UNUSABLE))
            elif name in targets:
                refused.append((row.file, f"{row.file}: a target of the name {name} was there before."))
                lost.append((row.split, UNUSABLE))
            else:
                targets[name], said = target
                sides.append(row.split)
                remarks += [(name, f"{row.file}: {sentence}") for sentence in said]
    given = tuple(side for side in sides if side is not None)
    return Planned(tuple(targets.values()), tuple(refused), tuple(remarks), given or None, tuple(lost))


def _row_targets(folder: Path, row: Row, longest: int) -> Iterator[tuple[str, tuple[Target, list[str]] | str]]:
    """Yield (name, (target, remarks)) or (file, sentence) for each chain that a row asks for."""
    try:
        structure = _checked(folder / row.file, row)
    except ValueError as error:
        yield row.file, f"{row.file}: {error}"
        return
    for chain in [row.chain] if row.chain else structure.chains:
        try:
            name = _name(row.file, chain)
            declared = row.sequence or structure.declared.get(chain)
            target, said = to_target(name, structure.chains[chain], declared, structure.complete, longest)
            yield name, (target, [*structure.remarks, *said])
        except ValueError as error:
            yield row.file, f"{row.file}, chain {chain or 'without a name'}: {error}"


def _checked(file: Path, row: Row) -> Structure:
    if not file.is_file():
        raise ValueError(NO_FILE)
    if row.sha256 and hashlib.sha256(file.read_bytes()).hexdigest() != row.sha256:
        raise ValueError(f"its sha256 is not that of {INDEX}.")
    structure = read_structure(file)
    if row.chain and row.chain not in structure.chains:
        raise ValueError(f"there is no chain {row.chain}; there are: {', '.join(structure.chains) or 'none'}.")
    return structure


def _name(file: str, chain: str) -> str:
    """Return 1ubq_A for chain A of 1ubq.pdb.gz and of 1ubq_A.pdb: also a safe file name."""
    stem = Path(file).name.split(".")[0]
    return stem if not chain or stem.endswith(f"_{chain}") else f"{stem}_{chain}"
