"""Finds a model: a folder, a package's folder, a GGUF file, or a hub repository at a pinned revision. No torch."""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lorta.config.places import package_places
from lorta.config.settings import ModelSettings, Quantization
from lorta.models.gguf import SUFFIX, file_sha256, is_gguf, missing_sentence, plain_folder
from lorta.models.hub import ask, fetch, require_commit
from lorta.models.hub_cache import HubFile, sha256_as_sent
from lorta.weight_files import require_no_pointer, require_shards, require_whole

MEBIBYTE = 2**20
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")  # names in a repository
TOKENIZERS = (  # files of which one group is enough
    *(("tokenizer.json",), ("tokenizer.model",), ("vocab.txt",), ("vocab.json", "merges.txt")),
    *(("spiece.model",), ("spm.model",), ("sentencepiece.bpe.model",), ("tekken.json",)),
)


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files are, what fixes their content, and in how many bits the weights are held."""

    location: str  # a folder, or a hub repository
    revision: str | None
    fingerprint: str
    config: dict[str, Any]  # the content of config.json
    quantization: Quantization | None = None  # None: as they are
    made_from: str | None = None  # the name of the GGUF file whose weights the folder holds
    license: str | None = None  # as the file states it


def find_model(settings: ModelSettings) -> ModelFiles:
    """Return the files of `conf/model`'s choice. Raises ValueError with the remedy when they are out of reach."""
    if settings.quantization is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            f"model.quantization={settings.quantization} needs bitsandbytes: pip install 'lorta[quantised]'"
        )
    if settings.path is None and settings.hub_id is None:
        raise ValueError(f"model={settings.name}: set model.path=FOLDER or model.hub_id=ORGANISATION/NAME")
    place = find_place(settings.path) if settings.path else None
    if place is not None:
        return _local_files(place, settings) if place.is_dir() else _gguf_files(place, settings)
    if settings.path is not None and is_gguf(settings.path):  # the hub has other weights
        raise ValueError(missing_sentence(settings.name, settings.path))
    if settings.hub_id is not None:
        return _hub_files(settings)
    raise ValueError(f"model.path={settings.path}: no such folder or package")


def most_tokens(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a `config.json`'s model has learned positions for, None where positions are computed."""
    kind = str(config.get("model_type"))
    most = config.get("n_positions" if kind == "gpt2" else "max_position_embeddings")
    if most is None or kind not in ("bert", "gpt2", "roberta", "xlm-roberta"):
        return None
    numbered_behind_padding = kind in ("roberta", "xlm-roberta")
    return most - config.get("pad_token_id", 1) - 1 if numbered_behind_padding else most


def find_place(path: str) -> Path | None:
    """Return the folder or GGUF file that a path or `package:NAME/PLACE` names, or None when there is none."""
    places = package_places(path)
    return next((place for place in places if place.is_dir() or (place.suffix == SUFFIX and place.is_file())), None)


def _gguf_files(file: Path, settings: ModelSettings) -> ModelFiles:
    require_no_pointer(file)
    sha256 = file_sha256(file)
    if settings.revision not in (None, sha256):
        raise ValueError(
            f"model={settings.name}: {file} has the SHA-256 {sha256}, and model.revision={settings.revision} is "
            "another file's: install the version that is pinned, or set model.revision=null"
        )
    made = plain_folder(file, settings.name)
    config = read_config(made.folder / "config.json", settings.name)
    _require_whole(made.folder, settings.name)
    return ModelFiles(str(made.folder), None, sha256, config, settings.quantization, file.name, made.license)


def _local_files(folder: Path, settings: ModelSettings) -> ModelFiles:
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ValueError(f"model={settings.name}: {folder} has no config.json")
    if not list(folder.glob("*.safetensors")):
        raise ValueError(f"model={settings.name}: {folder} has no *.safetensors (pickled weights are never loaded)")
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        raise ValueError(
            f"model={settings.name}: {folder} has no tokenizer (tokenizer.json, vocab.txt or the like): "
            "save the model's tokenizer beside it, tokenizer.save_pretrained(FOLDER)"
        )
    config = read_config(config_file, settings.name)
    _require_whole(folder, settings.name)
    _require_plain_weights(settings, config)
    return ModelFiles(str(folder), None, _fingerprint(folder), config, settings.quantization)


def read_config(file: Path, name: str) -> dict[str, Any]:
    """Return the content of a model's config.json. Raises ValueError for a file that holds anything else."""
    try:
        require_no_pointer(file)
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"model={name}: {_one_line(file, error)}: get it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"model={name}: {file} must hold a JSON object, and holds {str(config)[:40]!r}")
    return config


def _one_line(file: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{file} cannot be read ({error.strerror})"
    return str(error) if str(file) in str(error) else f"{file} is not JSON ({error})"


def _require_whole(folder: Path, name: str) -> None:
    """Raise ValueError for files that a download or a checkout left unfinished."""
    try:
        require_shards(folder)
        for file in sorted(folder.glob("*.safetensors")):
            require_whole(file)
        for names in TOKENIZERS:
            for file in (folder / known for known in names):
                if file.is_file():
                    require_no_pointer(file)
    except OSError as error:
        raise ValueError(f"model={name}: {error.filename} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"model={name}: {error}") from error


def _require_plain_weights(settings: ModelSettings, config: Mapping[str, Any]) -> None:
    if isinstance(held := config.get("quantization_config"), Mapping):
        method = held.get("quant_method", "unknown method")
        raise ValueError(
            f"model={settings.name}: the checkpoint itself is quantised ({method}), which model.quantization="
            f"{settings.quantization or 'null'} does not say: use the original weights, and model.quantization"
        )


def _fingerprint(folder: Path) -> str:
    """Return a SHA-256 over names, sizes, first and last MiB of a model's files: quick, and tells two apart."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors"), *folder.glob("*.txt")]):
        if file.name == "card.json":
            continue  # describes the model, is no part of it
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        digest.update(b"".join(_ends(file)))
    return digest.hexdigest()


def _ends(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        yield stream.read(MEBIBYTE)
        stream.seek(max(MEBIBYTE, file.stat().st_size - MEBIBYTE))
        yield stream.read(MEBIBYTE)


def _hub_files(settings: ModelSettings) -> ModelFiles:
    hub_id, revision, what = settings.hub_id, settings.revision, f"model={settings.name}"
    assert hub_id is not None
    if revision is None:
        raise ValueError(
            f"{what}: no commit of {hub_id} is pinned: set model.revision=COMMIT, or model.path=FOLDER for local files"
        )
    require_commit(what, "model.revision", hub_id, revision)
    remedy = f"hf download {hub_id} --revision {revision}"
    file = fetch(what, remedy, HubFile(hub_id, "config.json", revision))
    sha256_as_sent(file)
    config = read_config(file, settings.name)
    _require_plain_weights(settings, config)
    _require_safetensors(hub_id, revision, settings.name)
    return ModelFiles(hub_id, revision, f"{hub_id}@{revision}", config, settings.quantization)


def _require_safetensors(hub_id: str, revision: str, name: str) -> None:
    """Raise ValueError for a repository that is known to hold no safetensors, as for a folder."""
    from huggingface_hub import constants, file_exists, try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(hub_id, file, revision=revision), str) for file in SAFETENSORS):
        return
    try:
        absent = not constants.HF_HUB_OFFLINE and not any(
            ask(partial(file_exists, hub_id, file, revision=revision)) for file in SAFETENSORS
        )
    except Exception:  # the hub does not say: loading refuses pickled weights itself
        return
    pickled = isinstance(try_to_load_from_cache(hub_id, "pytorch_model.bin", revision=revision), str)
    if absent or (constants.HF_HUB_OFFLINE and pickled):
        raise ValueError(
            f"model={name}: {hub_id} at {revision} has no *.safetensors (pickled weights are never loaded): name a "
            "revision that has, or convert them and set model.path=FOLDER"
        )
