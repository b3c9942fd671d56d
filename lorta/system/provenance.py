"""Where a number comes from: commit, packages, machine."""

import hashlib
import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from lorta import __version__
from lorta.config.places import CHECKOUT, ROOT
from lorta.records.canonical import canonical_json
from lorta.records.sections import Code, Environment, Hardware
from lorta.system import allocator
from lorta.system.environment import recorded_variables

SHOWN = 3  # files in a sentence
UNKNOWN_CODE = "unknown code"  # begins the reason why a record names no commit
CODE_PATHS = (
    "lorta",
    "baselines",
    "experiments",
    "conf",
    "run.py",
    "requirements.lock",
)  # a changed README moves no number


def git(*arguments: str) -> str | None:
    """Return what git prints about this checkout, None where it fails or there is no checkout."""
    if CHECKOUT is None:
        return None
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


@lru_cache
def why_no_commit() -> str | None:
    """Return why the code that runs is of no known commit, None where it is of one."""
    if CHECKOUT is None:
        return f"no git: an installed package, version {__version__}"
    if _commit() is not None:
        return None
    try:
        command = ["git", "-C", str(CHECKOUT), "rev-parse", "--show-prefix", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return f"{UNKNOWN_CODE}: git is not installed"
    if "dubious ownership" in done.stderr:
        return (
            f"{UNKNOWN_CODE}: git refuses this checkout, which another user owns (dubious ownership); "
            "git config --global --add safe.directory FOLDER"
        )
    return f"{UNKNOWN_CODE}: the code is not in a git repository of its own, as in a ZIP file"


def _commit() -> str | None:
    lines = (git("rev-parse", "--show-prefix", "HEAD") or "").splitlines()
    own = len(lines) == 2 and not lines[0]  # with a prefix, the repository is one around this folder: another's
    return lines[1] if own else None


@lru_cache
def code() -> Code:
    """Return version and commit; dirty means that code or configuration differs from the commit.

    A package that was installed, or unpacked inside somebody's repository, is of no commit. The hash of the difference
    covers files that git does not know yet, such as the YAML file of a new adapter.
    """
    sha = _commit()
    files = uncommitted_files() if sha else None
    return Code(
        package_version=__version__,
        git_sha=sha,
        git_dirty=None if files is None else bool(files),
        diff_sha256=_difference() if files else None,
    )


def uncommitted_files() -> list[str] | None:
    """Return the files of code and configuration that differ from the commit or are new; None outside a checkout."""
    status = git("status", "--porcelain", "--untracked-files=all", "--", *CODE_PATHS)
    return None if status is None else [line[3:] for line in status.splitlines()]


def _difference() -> str:
    """Return the SHA-256 of `git diff HEAD` and of the files that git does not know yet."""
    digest = hashlib.sha256((git("diff", "HEAD", "--", *CODE_PATHS) or "").encode())
    for name in (git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE_PATHS) or "").split("\0"):
        if name and CHECKOUT is not None and (file := CHECKOUT / name).is_file():
            digest.update(name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def uncommitted_sentence() -> str | None:
    """Return what follows from code that is not committed, or unknown, for the start of a sweep; None where all is."""
    if (reason := why_no_commit()) and reason.startswith(UNKNOWN_CODE):
        return f"{reason}. The records will say so, and committed suites refuse them"
    files = uncommitted_files() if _commit() else None
    if not files:
        return None
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return (
        f"not committed: {', '.join(files[:SHOWN])}{more}. The records will say so, and committed suites refuse them; "
        "commit first, or repeat the runs afterwards with runtime.force=true"
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@lru_cache
def environment() -> Environment:
    """Return Python, all installed packages, the lock's hash, and the variables that can move a number."""
    cards = [distribution.metadata for distribution in metadata.distributions()]  # read and parsed at each access
    packages = {card["Name"]: card["Version"] for card in cards if card["Name"]}
    lock = ROOT / "requirements.lock"
    return Environment(
        python=platform.python_version(),
        packages=dict(sorted(packages.items())),
        lock_sha256=hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        env_vars=recorded_variables(),
        allocator=allocator.in_use(),
    )


@lru_cache
def hardware() -> Hardware:
    """Return processor, memory and GPU."""
    import psutil
    import torch

    gpus = torch.cuda.device_count()
    properties = torch.cuda.get_device_properties(0) if gpus else None
    return Hardware(
        cpu=_processor(),
        cores=os.cpu_count() or 1,
        ram_bytes=psutil.virtual_memory().total,
        gpu_name=properties.name if properties else None,
        gpu_count=gpus,
        gpu_memory_bytes=properties.total_memory if properties else None,
        hostname_hash=hashlib.sha256(platform.node().encode()).hexdigest()[:12],
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    return processor_name(text) or platform.machine()


def processor_name(cpuinfo: str) -> str | None:
    """Return the name of the first processor in the text of /proc/cpuinfo, None where it has none (ARM).

    A virtual machine may give several generations one name (AMD EPYC), and each rounds sums its own way: family, model
    and stepping tell them apart.
    """
    first = cpuinfo.strip().split("\n\n")[0].splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
    numbers = [f"{key} {fields[key]}" for key in ("cpu family", "model", "stepping") if key in fields]
    name = fields.get("model name")
    return name and (f"{name} ({', '.join(numbers)})" if numbers else name)


@lru_cache
def env_fingerprint() -> str:
    """Return 12 hex digits of what timings depend on: processor, GPU, torch, transformers, peft, another allocator."""
    machine = hardware()
    packages = {name: _version(name) for name in ("torch", "transformers", "peft")}
    other = [allocator_name] if (allocator_name := environment().allocator) else []
    text = canonical_json([machine.cpu, machine.cores, machine.gpu_name, machine.gpu_count, packages, *other])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
