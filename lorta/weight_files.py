"""Whether the files of weights are there and whole, from names, first bytes and sizes: told before anything is loaded.

Format: eight bytes of length, little-endian, a JSON header with the place of each tensor, the tensors
(huggingface.co/docs/safetensors). No torch.
"""

import json
from pathlib import Path
from typing import Any

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, "adapter_model.bin")  # of a folder that PEFT saved
LFS = b"version https://git-lfs"
LENGTH = 8  # bytes
INDEX = ".safetensors.index.json"


def require_free(folder: str | Path, source: str | Path) -> None:
    """Raise ValueError where writing would replace the adapter that is read, or another one, or cannot be."""
    target = Path(folder)
    if Path(source).resolve() == target.resolve():
        raise ValueError(f"{folder}: the new adapter would replace the one that is read: name another folder.")
    above = next((place for place in (target, *target.parents) if place.exists()), Path())
    if not above.is_dir():
        raise ValueError(f"{folder}: {above} is a file, and a folder is needed to write to: name another one.")
    taken = [name for name in ADAPTER_FILES if (target / name).exists()]
    if taken:
        raise ValueError(
            f"{folder}: the new adapter would replace the one that is there ({', '.join(taken)}): name another folder, "
            "or remove it first."
        )


def require_saved(folder: str | Path) -> dict[str, Any]:
    """Return the content of a saved adapter's configuration.

    Raises FileNotFoundError for a folder without one, or without weights; ValueError for one that cannot be read.
    """
    file = Path(folder) / ADAPTER_CONFIG
    if not file.is_file():
        inside = Path(folder) / "adapter"
        hint = f": did you mean {inside}?" if (inside / ADAPTER_CONFIG).is_file() else "."
        raise FileNotFoundError(f"{folder}: no adapter is saved there, {ADAPTER_CONFIG} is missing{hint}")
    require_no_pointer(file)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: it is not JSON ({error}): save the adapter again.") from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise ValueError(f"{file}: it names no peft_type, so it is no configuration of PEFT: save the adapter again.")
    if not (Path(folder) / ADAPTER_WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder}: {ADAPTER_WEIGHTS} is missing; other formats are not read.")
    require_whole(Path(folder) / ADAPTER_WEIGHTS)
    return config


def require_whole(file: Path) -> None:
    """Raise ValueError for a safetensors file that is a git-lfs pointer, cut off or something else."""
    size = file.stat().st_size
    require_no_pointer(file)
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH), "little")
        header = _header(stream.read(min(length, size))) if LENGTH + length <= size else None
    if size <= LENGTH or (header is None and LENGTH + length <= size):
        raise ValueError(f"{file}: it is no safetensors file: get it again")
    ends = [tensor["data_offsets"][1] for name, tensor in (header or {}).items() if name != "__metadata__"]
    whole = LENGTH + length + max(ends, default=0)
    if size < whole:
        raise ValueError(
            f"{file}: it is cut off, {size:,} bytes of {'more' if header is None else f'{whole:,}'}: get it again"
        )


def require_no_pointer(file: Path) -> None:
    """Raise ValueError for a file that git-lfs left in the place of its content."""
    with file.open("rb") as stream:
        if stream.read(len(LFS)) == LFS:
            raise ValueError(f"{file}: it is a git-lfs pointer, not the file: run `git lfs pull` in its repository")


def require_shards(folder: Path) -> None:
    """Raise ValueError where an index of several weight files names one that is not there."""
    for index in folder.glob(f"*{INDEX}"):
        names = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
        if missing := sorted(name for name in names if not (folder / name).is_file()):
            raise ValueError(f"{index}: it names {', '.join(missing)}, which is not there: get all files again")


def _header(content: bytes) -> dict[str, Any] | None:
    try:
        header = json.loads(content)
    except ValueError:
        return None
    return header if isinstance(header, dict) else None
