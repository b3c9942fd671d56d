"""Whether a safetensors file is whole, from its first bytes and its size: what a download left is told while planning.

Format: eight bytes of length, little-endian, a JSON header with the place of each tensor, the tensors
(huggingface.co/docs/safetensors). No torch.
"""

import json
from pathlib import Path
from typing import Any

LFS = b"version https://git-lfs"
LENGTH = 8  # bytes
INDEX = ".safetensors.index.json"


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
