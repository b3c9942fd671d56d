"""The model hub: a file's presence is asked before a run begins, and every answer but the file is one sentence.

All questions go through huggingface_hub, so that its proxies, tokens and HF_ENDPOINT hold. A hub that does not answer
blocks a plan for `PATIENCE_S`, once. No torch.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from lorta.models.hub_cache import HubFile, Kind, sha256_as_sent

PATIENCE_S = 8.0  # for one answer while planning
FORGET_S = 60.0  # so long a hub that did not answer is not asked again
COMMIT = re.compile(r"[0-9a-f]{40}")
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")  # of a repository's top folder: all but weights
ELSEWHERE = (
    "use what needs none: model=tiny, tiny_llama or tiny_esmfold (embedded), model=minilm or smollm2_135m (Python "
    "packages), model=custom model.path=FOLDER, data.root=FOLDER"
)
Answer = TypeVar("Answer")
_silent_until: dict[str, float] = {}  # by address


def require_commit(what: str, key: str, hub_id: str, revision: str, kind: Kind = "model") -> None:
    """Raise ValueError for a revision that is no commit, such as main: what it names may be another thing tomorrow."""
    if COMMIT.fullmatch(revision):
        return
    raise ValueError(
        f"{what}: {key}={revision} is a branch or a tag of {hub_id}, which may move: set {key}=COMMIT, its 40 digits"
        f"{_commit_now(hub_id, revision, kind)}"
    )


def _commit_now(hub_id: str, revision: str, kind: Kind) -> str:
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return ""
    try:
        return f" ({ask(lambda: HfApi().repo_info(hub_id, revision=revision, repo_type=kind, timeout=PATIENCE_S)).sha})"
    except Exception:  # it is only a hint
        return ""


def require_file(what: str, remedy: str, file: HubFile) -> None:
    """Raise ValueError for a file that is neither in the cache nor on a hub that can be reached.

    `what` begins the sentence, `remedy` is the command that fetches the file.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if file.cached() is not None:
        return
    missing = f"{what} is not in the local cache and"
    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE") == "1":
        raise ValueError(
            f"{missing} offline mode is set (HF_HUB_OFFLINE): run `{remedy}` where there is a network, or {ELSEWHERE}"
        )
    url = hf_hub_url(file.hub_id, file.name, repo_type=file.kind, revision=file.revision)
    try:
        metadata = ask(lambda: get_hf_file_metadata(url, timeout=PATIENCE_S))
    except Exception as error:
        raise ValueError(f"{missing} {sentence(error, file)}, or {ELSEWHERE}") from _of_system(error)
    if metadata.commit_hash is None or metadata.etag is None:
        raise ValueError(f"{missing} {_host()} does not answer as a model hub does, {_PORTAL}, or {ELSEWHERE}")


def fetch(what: str, remedy: str, file: HubFile) -> Path:
    """Return a small file, from the cache or the hub. Raises ValueError as `require_file`."""
    from huggingface_hub import hf_hub_download

    require_file(what, remedy, file)
    if (cached := file.cached()) is not None:
        return cached
    try:
        return Path(ask(lambda: hf_hub_download(file.hub_id, file.name, repo_type=file.kind, revision=file.revision)))
    except Exception as error:
        raise ValueError(f"{what} cannot be downloaded: {sentence(error, file)}") from _of_system(error)


def download(file: HubFile) -> Path:
    """Return a file as the hub has it, from the cache or the hub. Raises OSError, or ValueError for an edited cache."""
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(file.hub_id, file.name, repo_type=file.kind, revision=file.revision))
    sha256_as_sent(path)
    return path


def small_files(hub_id: str, revision: str, any_of: Sequence[Sequence[str]]) -> Path:
    """Return a folder with a repository's configuration and tokenizer, all of it, fetched where it is not cached.

    transformers, which asks for one file after the other, takes what fails for what is not there. Without a network the
    cache will do when it has one of the groups of files in `any_of`. Raises ValueError.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError

    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": list(SMALL_FILES), "ignore_patterns": ["*/*"]}
    any_file = HubFile(hub_id, "config.json", revision)
    try:
        listed = [file.filename for file in snapshot_download(hub_id, dry_run=True, **wanted)]
        folder = Path(snapshot_download(hub_id, **wanted)) if listed else Path()
    except Exception as error:
        behind = error.__cause__ if isinstance(error, DryRunError) and error.__cause__ else error
        config = any_file.cached()
        if config is None or _answered(behind) or not any(_all_in(config.parent, names) for names in any_of):
            raise ValueError(f"{hub_id}: its files are incomplete: {sentence(behind, any_file)}") from _of_system(
                behind
            )
        listed, folder = [file.name for file in config.parent.iterdir() if _is_small(file.name)], config.parent
    if lost := [name for name in listed if not (folder / name).is_file()]:
        raise ValueError(f"{hub_id}: {', '.join(lost)} could not be downloaded: start the same command again")
    for name in listed:
        sha256_as_sent(folder / name)
    return folder


def ask(question: Callable[[], Answer]) -> Answer:
    """Return the answer to a question that goes to the hub. Raises TimeoutError after `PATIENCE_S`, whatever it waits
    for, and at once while a hub that did not answer is not asked again; or what the question raises.
    """
    from huggingface_hub import constants

    if time.monotonic() < _silent_until.get(constants.ENDPOINT, 0.0):
        raise TimeoutError
    answers: list[Answer] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            answers.append(question())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)  # nobody waits for it when the command ends
    thread.start()
    thread.join(PATIENCE_S)
    if errors:
        raise errors[0]
    if not answers:
        _silent_until[constants.ENDPOINT] = time.monotonic() + FORGET_S
        raise TimeoutError
    return answers[0]


_PORTAL = "as if a login page of the network were in between: open a page in a browser there, or check HF_ENDPOINT"


def sentence(error: BaseException, file: HubFile) -> str:
    """Return what a failed question means, without a capital and without a full stop, with the remedy."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return sentence(error.__cause__, file)
    hub_id, address = file.hub_id, constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        return f"{hub_id} is gated: accept its terms at {address}/{hub_id} and log in (`hf auth login`, or HF_TOKEN)"
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no {hub_id}, or it is private: check its name, or log in (`hf auth login`, or HF_TOKEN)"
    if isinstance(error, RevisionNotFoundError):
        return f"{hub_id} has no revision {file.revision}: take a commit of its page's history"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{hub_id} has no file {file.name} at revision {file.revision}: check both"
    if isinstance(error, FileMetadataError):
        return f"{_host()} does not answer as a model hub does, {_PORTAL}"
    if isinstance(error, HfHubHTTPError):
        return _by_status(error.response.status_code, hub_id)
    return _unanswered(error)


def _by_status(status: int, hub_id: str) -> str:
    if status == 401:
        return f"{_host()} wants a login for {hub_id} (401): check its name, and log in (`hf auth login`, or HF_TOKEN)"
    if status == 403:
        return f"{_host()} forbids {hub_id} (403): ask its owners, or log in (`hf auth login`, or HF_TOKEN)"
    if status == 429:
        return f"{_host()} has had too many requests from here (429): wait some minutes, or log in (HF_TOKEN)"
    return f"{_host()} answers with an error of its own ({status}): try again later"


def _unanswered(error: BaseException) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"TimeoutError", "TimeoutException"}:
        return f"{_host()} does not answer within {PATIENCE_S:g} s: try again where there is a network"
    said = " ".join(str(error).split())
    if kinds & {"TransportError", "OfflineModeIsEnabled", "ConnectionError"}:
        proxy = " through the proxy" if any(os.environ.get(name) for name in _PROXIES) else ""
        return f"{_host()} cannot be reached{proxy} ({said}): try again where there is a network"
    return f"{type(error).__name__}: {said}"


_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def _host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc or constants.ENDPOINT


def _answered(error: BaseException) -> bool:
    """Return whether the hub itself refused, rather than that there was no way to it."""
    return hasattr(error, "response") or "FileMetadataError" in {kind.__name__ for kind in type(error).__mro__}


def _of_system(error: BaseException) -> BaseException:
    """Return an error that counts as the machine's or the network's fault, which another attempt may not meet."""
    return error if isinstance(error, OSError) else ConnectionError(str(error))


def _all_in(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def _is_small(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in SMALL_FILES)
