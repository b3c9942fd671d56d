"""Files of the model hub in its cache, and whether they are what the hub sent. No torch.

The cache names what its links point to by the hub's own hash (huggingface.co/docs/huggingface_hub/guides/manage-cache).
"""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["model", "dataset"]


class HubFile(NamedTuple):
    """A file of a repository at a revision."""

    hub_id: str
    name: str
    revision: str
    kind: Kind = "model"

    def cached(self) -> Path | None:
        """Return where the hub's cache has it, or None."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.hub_id, self.name, repo_type=self.kind, revision=self.revision)
        return Path(path) if isinstance(path, str) else None


def weights_sha256(hub_id: str, revision: str) -> str | None:
    """Return the SHA-256 of a repository's cached safetensors, of several files that of their names and hashes.

    None where there are none. Raises ValueError for a cache that was edited.
    """
    index = HubFile(hub_id, "model.safetensors.index.json", revision).cached()
    single = HubFile(hub_id, "model.safetensors", revision).cached()
    if single is not None:
        return sha256_as_sent(single)
    if index is None:
        return None
    names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    hashes = "".join(f"{name} {sha256_as_sent(index.parent / name)}\n" for name in names)
    return hashlib.sha256(hashes.encode()).hexdigest()


def sha256_as_sent(path: Path) -> str:
    """Return the SHA-256 of a file in the hub's cache. Raises ValueError where it is not what the hub sent.

    The cache's links name what they point to by the hub's hash: SHA-256 of large files, git's SHA-1 of small ones. In a
    cache without links, as some file systems force it, nothing can be compared.
    """
    sha256, sha1 = _hashes(path, path.stat().st_mtime_ns, path.stat().st_size)
    if path.is_symlink():
        sent = Path(os.readlink(path)).name
        now = {64: sha256, 40: sha1}.get(len(sent), sent)
    else:
        blobs = path.parents[2] / "blobs" if len(path.parents) > 2 else path
        sent, now = ("a link", "a file") if blobs.is_dir() and any(blobs.iterdir()) else ("", "")
    if now != sent:
        raise ValueError(
            f"{path}: it is not what the hub sent (its hash is {now}, not {sent}): it was edited or is damaged; remove "
            "it with what it links to, and start the same command again"
        )
    return sha256


@lru_cache
def _hashes(path: Path, changed_ns: int, size: int) -> tuple[str, str]:
    """Return SHA-256, and SHA-1 as git takes it of a file (git-hash-object(1))."""
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while part := stream.read(2**20):
            sha256.update(part)
            sha1.update(part)
    return sha256.hexdigest(), sha1.hexdigest()
