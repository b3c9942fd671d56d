"""`lorta drift`: repeat the runs of results/reference_runs, or record them anew (experiment=reference_runs)."""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from lorta.cli.own_folders import declare_code
from lorta.system.quiet import be_quiet  # before torch comes

DRIFTED = 1  # exit status
BASE_KEY = "base_model_name_or_path"  # of PEFT's adapter_config.json: a path of the machine that trained it


def declare(parser: argparse.ArgumentParser) -> None:
    """Take where the reference runs are, and what to do with them."""
    parser.add_argument(
        *("--reference-runs", "--canaries"),
        dest="folder",
        metavar="FOLDER",
        type=Path,
        default=Path("results/reference_runs"),
        help="(default: results/reference_runs)",
    )
    declare_code(parser)
    parser.add_argument("--if-changed", action="store_true", help="check only if versions or hardware have changed")
    parser.add_argument(
        "--record", action="store_true", help="record the reference runs again and replace the present ones"
    )


def run(parsed: argparse.Namespace) -> int:
    """Print how each reference run came out; 1 when one of them drifted."""
    be_quiet()
    if parsed.record:
        for folder in record(parsed.folder):
            print(f"{folder}: recorded")
        return 0
    folders = reference_folders(parsed.folder)
    if not folders:
        raise ValueError(f"{parsed.folder} has no reference run: create them with lorta drift --record")
    from lorta.config.instantiate import trusting

    with trusting(parsed.code):
        return _check(folders, parsed.if_changed)


def reference_folders(place: Path) -> list[Path]:
    """Return the run folders of a place."""
    from lorta.records.store import RECORD_NAME

    return sorted(file.parent for file in place.glob(f"*/{RECORD_NAME}"))


def _check(folders: list[Path], if_changed: bool) -> int:
    from lorta.config.places import CONF
    from lorta.drift.reference_runs import changes_since, check
    from lorta.records.store import Store

    kinds: set[str] = set()
    for folder in folders:
        reference = Store(folder.parent).read(folder.name)
        assert reference is not None
        if if_changed and not changes_since(reference):
            print(f"{folder.name}: versions and hardware have not changed, nothing was run")
            continue
        drifted = check(folder, CONF)
        changed = ", ".join(drifted.changes)
        print(f"{drifted.title}; {f'changed: {changed}' if changed else 'nothing changed: equal numbers are expected'}")
        for look in drifted.looks:
            most = look.allowed(not changed)
            allowed = f"{most:g} allowed" if most else "none allowed"
            verdict = "DRIFT" if look.drifted(not changed) else "ok"
            print(f"  {verdict:5s} {look.kind}: {look.detail}, largest difference {look.difference:g} ({allowed})")
        kinds |= set(drifted.kinds)
    print(f"{' and '.join(sorted(kinds))} drift" if kinds else "no drift")
    return DRIFTED if kinds else 0


def record(place: Path) -> Iterator[Path]:
    """Run the recipe and yield the folder of each reference run, which then holds what a check needs.

    Raises ValueError when a run fails; the reference runs that were there are removed once all have succeeded.
    """
    from lorta.config.places import CONF
    from lorta.planning.planner import make_plan
    from lorta.runner.execute import execute

    with TemporaryDirectory() as work:
        words = ["experiment=reference_runs", f"runtime.runs={work}/runs", f"runtime.cache={work}/cache"]
        specs = make_plan(words, True, CONF).specs
        records = [execute(spec) for spec in specs]
        if failed := [ended for ended in records if ended.status != "success"]:
            raise ValueError(
                f"{len(failed)} reference runs did not succeed: {failed[0].failure and failed[0].failure.message}"
            )
        for folder in reference_folders(place):
            shutil.rmtree(folder)
        for spec in specs:
            yield _keep(spec.folder, place / spec.run_id)


def _keep(run: Path, reference: Path) -> Path:
    """Copy what a check reads, without the path at which this machine has the base model."""
    from lorta.records.store import write_atomically

    for file in sorted([*run.glob("*.json"), *run.glob("*.jsonl"), *run.glob("adapter/*.safetensors")]):
        write_atomically(reference / file.relative_to(run), file.read_bytes())
    for file in run.glob("adapter/*.json"):
        settings = json.loads(file.read_text()) | {BASE_KEY: None}
        write_atomically(reference / file.relative_to(run), json.dumps(settings, indent=1, sort_keys=True) + "\n")
    return reference
