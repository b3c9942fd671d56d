"""`lorta show | ls | diff | rm`: the runs of a store, one or many, without torch."""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

from lorta.cli.filters import declare_filters, filtered, require_store
from lorta.records.canonical import flat
from lorta.records.locks import holder
from lorta.records.row_counts import RowCount
from lorta.status.states import RawRecord, glance, other_code_lines, state_of
from lorta.system.run_log import LOG_NAME
from lorta.system.source_files import roots_of
from lorta.system.terminal import counted

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # characters of a sparkline


def declare_store(parser: argparse.ArgumentParser) -> None:
    """Add the store."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")


def declare_show(parser: argparse.ArgumentParser) -> None:
    """Take one run."""
    parser.add_argument("run", metavar="ID", help="a run's id, or its first characters")
    declare_store(parser)


def declare_diff(parser: argparse.ArgumentParser) -> None:
    """Take two runs."""
    parser.add_argument("ids", nargs=2, metavar="ID", help="a run's id, or its first characters")
    declare_store(parser)


def declare_ls(parser: argparse.ArgumentParser) -> None:
    """Take filters and an order."""
    declare_filters(parser, "*")
    parser.add_argument("--sort", choices=("score", "time", "size", "date"), default="score", help="(default: score)")
    declare_store(parser)


def declare_rm(parser: argparse.ArgumentParser) -> None:
    """Take filters; without --yes a question is asked."""
    declare_filters(parser, "+")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    declare_store(parser)


def show(parsed: argparse.Namespace) -> None:
    """Print one run: settings, scores, losses, and why it failed."""
    record = _one(parsed.runs, parsed.run)
    print(f"{record.get('run_id')}  {record.title}: {record.get('status')}, {record.get('created_at')}")
    print(f"folder    {record.folder}")
    print(f"settings  {' '.join(record.get('overrides') or ())}")
    for group in ("model", "trainer", "data"):
        _print_settings(group, record.get("config", group) or {})
    for split, scores in (record.get("metrics") or {}).items():
        for name, score in scores.items():
            print(f"score     {split} {name} {_score_text(score)}")
    params, time, code = (record.get(name) or {} for name in ("params", "time", "code"))
    for split, told in (record.get("task", "splits") or {}).items():
        if told.get("read") is not None:
            count = RowCount(told["read"], told.get("dropped") or {}, told.get("noted") or {})
            print(f"rows      {split} {count.in_full}")
    sizes = [params.get(name) for name in ("adapter", "head", "other_trainable")]
    if None not in sizes:
        print("weights   {:,} adapter, {:,} head, {:,} other".format(*sizes))
    if time:
        print(f"seconds   {time.get('train_s')} training, {time.get('eval_s')} evaluation, {time.get('wall_s')} in all")
    if said := _other_code(record) or _commit(code):
        print(f"code      {said}")
    _print_losses(record.folder)
    if (log := record.folder / LOG_NAME).is_file():
        print(f"log       {log}")
    if failure := record.get("failure"):
        print(f"failure   {failure['kind']} in {failure['phase']}: {failure['type']}: {failure['message']}")
        if failure.get("traceback_file"):
            print(f"          {record.folder / failure['traceback_file']}")


def _commit(code: Mapping[str, Any]) -> str:
    changes = " with uncommitted changes" if code.get("git_dirty") else ""
    return f"{str(code['git_sha'])[:12]}{changes}" if code.get("git_sha") else ""


def _other_code(record: RawRecord) -> str:
    """Return what other code than the present one has done a run; empty where it is the same, or no run of ours."""
    state = None if record.get("imported") else state_of(record)
    return state.why if state is not None and state.state == "done" else ""


def _print_settings(group: str, settings: Mapping[str, Any]) -> None:
    """Print what a run had of a group, typed or not; unset keys are left out."""
    words = [f"{key}={_text(value)}" for key, value in settings.items() if value is not None]
    if words:
        print(
            fill(" ".join(words), 80, initial_indent=f"{group:10s}", subsequent_indent=" " * 10, break_on_hyphens=False)
        )


def _print_losses(folder: Path) -> None:
    rows = [row for row in _rows(folder / "history.jsonl") if row.get("loss") is not None]
    if rows:
        losses = [float(row["loss"]) for row in rows]
        steps = f"steps {rows[0].get('step')} to {rows[-1].get('step')}"
        print(f"loss      {sparkline(losses)}  {losses[0]:.4g} to {losses[-1]:.4g}, {steps}")


def _rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines; the last one may still be written."""
    rows: list[dict[str, Any]] = []
    try:
        for line in file.read_text().splitlines():
            rows.append(json.loads(line))
    except (OSError, ValueError):
        return rows
    return rows


def sparkline(values: Sequence[float]) -> str:
    """Return a line of bars, at most WIDTH, each the mean of its part of the values."""
    count = min(WIDTH, len(values))
    bounds = [round(place * len(values) / count) for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
    low, high = min(means), max(means)
    steps = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * steps)] for value in means)


def ls(parsed: argparse.Namespace) -> None:
    """Print the runs that pass the filters, the best of each task, model and data first, and what tells names apart."""
    records = sorted(filtered(parsed.runs, parsed.words), key=lambda record: _place(record, parsed.sort))
    for record, words in zip(records, _distinctions(records), strict=True):
        score = _primary(record)
        size, time = record.get("params", "adapter"), record.get("time", "train_s")
        print(
            f"{record.get('run_id')}  {record.get('status'):9s} {_score_text(score):>9s}  "
            f"{'-' if size is None else f'{size:,}':>11s}  {'-' if time is None else f'{time:.1f} s':>9s}  "
            f"{record.title}{f' {words}' if words else ''}"
        )
    print(f"{counted(len(records), 'run')} in {parsed.runs}")
    for line in other_code_lines(state_of(record) for record in records if not record.get("imported")):
        print(line, file=sys.stderr)


def _distinctions(records: Sequence[RawRecord]) -> list[str]:
    """Return for each run the model, where there are several, the rates as typed, and what equal names differ in."""
    settings = [flat(record.get("config") or {}) for record in records]
    same_name: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for record, own in zip(records, settings, strict=True):
        same_name.setdefault((record.title, own.get("model.name")), []).append(own)
    several_models = len({own.get("model.name") for own in settings}) > 1
    texts: list[str] = []
    for record, own in zip(records, settings, strict=True):
        words = dict(word.split("=", 1) for word in record.get("overrides") or () if word.startswith("trainer."))
        for key in _differing(same_name[record.title, own.get("model.name")]):
            words[key] = _text(own.get(key))
        model = {"model": own["model.name"]} if several_models and own.get("model.name") else {}
        texts.append(" ".join(f"{key}={value}" for key, value in {**model, **words}.items()))
    return texts


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which runs of one name differ; fingerprints follow from their files."""
    keys = dict.fromkeys(key for own in settings for key in own if not key.startswith("fingerprints."))
    return [key for key in keys if any(own.get(key) != settings[0].get(key) for own in settings)]


def _place(record: RawRecord, order: str) -> tuple[Any, ...]:
    """Return what records are sorted by: within a task, model, protocol and data, those without the value last."""
    if order == "date":
        return (str(record.get("created_at")),)
    value = record.get("time", "train_s") if order == "time" else record.get("params", "adapter")
    if order == "score":
        score, better = (_primary(record) or {}).get("value"), record.get("task", "higher_is_better")
        value = None if score is None else -score if better else score
    names, protocol = (record.get("task", "name"), record.get("model", "name")), record.get("task", "protocol")
    compared = map(str, (*names, protocol, record.scored_split.get("fingerprint")))
    return *compared, value is None, value or 0.0, str(record.get("run_id"))


def _primary(record: RawRecord) -> Mapping[str, Any] | None:
    return record.get("metrics", str(record.get("task", "split_primary")), str(record.get("task", "metric_primary")))


def _score_text(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    return f"{score['value']:.4f}" if score.get("value") is not None else f"none ({score.get('reason')})"


def diff(parsed: argparse.Namespace) -> None:
    """Print the settings, scores, sizes, seconds and code in which two runs differ."""
    records = [_one(parsed.runs, name) for name in parsed.ids]
    for record in {str(record.get("run_id")): record for record in records}.values():
        if said := _other_code(record):
            print(f"{record.get('run_id')}: {said}", file=sys.stderr)
    same_files = len({roots_of(record.get("config") or {}) for record in records}) == 1
    texts = [flat(_compared(record, same_files)) for record in records]
    differing = [key for key in dict.fromkeys([*texts[0], *texts[1]]) if texts[0].get(key) != texts[1].get(key)]
    if not differing:
        print("the two runs differ in nothing")
        return
    rows = [("", *(str(record.get("run_id")) for record in records))]
    rows += [(key.removeprefix("config."), *_texts(texts[0].get(key), texts[1].get(key))) for key in differing]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, first, second in rows:
        print(f"{key:{widths[0]}s}  {first:{widths[1]}s}  {second}")


def _texts(first: Any, second: Any) -> tuple[str, str]:
    """Return two differing values as texts: numbers with six digits, or with all where six are equal."""
    short = _text(first), _text(second)
    return short if short[0] != short[1] else (str(first), str(second))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _compared(record: RawRecord, with_files: bool) -> dict[str, Any]:
    """Return what is compared; the digest of a run's files says nothing beside that of another method or task."""
    sections = ("config", "metrics", "params", "time", "hardware")
    code = record.get("code") or {}
    return {
        "status": record.get("status"),
        **{name: record.get(name) for name in sections},
        "code": {"commit": _commit(code) or None, "files_sha256": code.get("sources_sha256") if with_files else None},
    }


def rm(parsed: argparse.Namespace) -> int:
    """Remove the folders of the runs that pass the filters. Runs at work stay, and so do committed records."""
    records = filtered(parsed.runs, parsed.words)
    if not records:
        print(f"no run in {parsed.runs} passes these filters")
        return 0
    _refuse_committed(parsed.runs)
    busy = [record for record in records if holder(record.folder) is not None]
    records = [record for record in records if record not in busy]
    for record, words in list(zip(records, _distinctions(records), strict=True))[:20]:
        print(f"{record.get('run_id')}  {record.get('status'):9s} {record.title}{f' {words}' if words else ''}")
    if busy:
        print(f"left alone, because at work: {counted(len(busy), 'run')}")
    if not parsed.yes and not _agreed(f"remove {counted(len(records), 'run')} from {parsed.runs}? [y/N] "):
        print("nothing was removed")
        return 1
    for record in records:
        shutil.rmtree(record.folder)
    print(f"{counted(len(records), 'run')} removed from {parsed.runs}")
    return 0


def _refuse_committed(root: Path) -> None:
    """Raise ValueError for a store whose files git keeps."""
    command = ["git", "-C", str(root), "ls-files", "--", "."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout.strip():
        raise ValueError(f"{root} holds committed records, which are never removed: name another store with --runs")


def _one(root: Path, name: str) -> RawRecord:
    """Return the record of a run by the beginning of its id. Raises ValueError when there is none, or several."""
    require_store(root)
    folders = sorted(folder for folder in root.glob(f"{name}*") if folder.is_dir()) if name.isalnum() else []
    records = [record for folder in folders if (record := glance(folder)) is not None]
    if len(records) != 1:
        raise ValueError(f"{name}: {_so_many(len(records))} of {root} with an id that begins so; `lorta ls` lists all")
    return records[0]


def _so_many(count: int) -> str:
    return counted(count, "run") if count else "no run"


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() == "y"
    except EOFError:
        print()
        raise ValueError("nobody answered, so nothing was removed: add --yes to remove without being asked") from None
