"""The text around a table: title, notes, and the list of runs that have no result."""

from collections.abc import Callable, Iterable, Sequence

from lorta.analysis.summary import POINTS, Run, Table, group
from lorta.records.record import RunRecord
from lorta.records.sections import Split
from lorta.reporting.imported import imported_sentences, of_protocol
from lorta.reporting.notes import head_sentence, search_sentence

PRIVATE_TESTS = ("glue/",)  # families whose test labels are not public
ORDERS = {
    "random": "rows in random order",
    "groups of like length": "steps of rows alike in length, in random order",
    "from long to short": "steps of rows alike in length, each 50 of them from long rows to short ones",
}
MESSAGE_CHARACTERS = 160  # of a failure's first line


def title(table: Table) -> str:
    """Return the table's name: what tells it from other tables of the same report."""
    run = table.runs[0]
    if run.record.imported is not None:
        better = [] if table.higher_is_better else ["lower is better"]
        return ", ".join([run.model.name, f"imported from {run.record.imported.format}", *better, *of_protocol(table)])
    lengths = {_training(run) for run in table.runs}
    parts = [run.model.name, f"{run.task.source} data", f"protocol {run.task.protocol}", *_caps(run)]
    parts += [] if table.higher_is_better else ["lower is better"]
    parts.append(lengths.pop() if len(lengths) == 1 else "training length differs by task")
    parts += ["steps from long rows to short"] if run.record.row_order == "from long to short" else []
    return ", ".join([*parts, *(["best epoch"] if run.protocol.selection == "best" else [])])


def caption(table: Table) -> list[str]:
    """Return the notes on model, data, training, selection, scores, learning rates, code and timing."""
    if table.runs[0].record.imported is not None:
        own = [_model(table), f"Scored rows: {_by_task(table, _scored_rows)}.", _length(table), scores_sentence(table)]
        timed = any(row.train_s.mean is not None for row in table.rows)
        return [*own, *imported_sentences(table), *([_timing(table)] if timed else [])]
    sentences = (
        _model,
        _data,
        _classes,
        _lost_rows,
        _noted_rows,
        _length,
        _selection,
        scores_sentence,
        _base_scores,
        head_sentence,
        _learning_rates,
        search_sentence,
        _code,
        _timing,
    )
    return [text for sentence in sentences if (text := sentence(table))]


def without_result(records: Iterable[RunRecord]) -> list[str]:
    """Return one line per status other than success, then one per method and reason, in a fixed order."""
    given = list(records)
    trials = sum(record.status == "success" and record.is_trial for record in given)
    lines = (
        [f"{trials} learning-rate trials, scored on rows held out from the training data; no table contains them"]
        if trials
        else []
    )
    rest = [record for record in given if record.status != "success"]
    for status, of_status in sorted(group(rest, lambda record: record.status).items()):
        lines.append(f"{len(of_status)} {status}:")
        reasons = group(of_status, lambda record: (method(record), reason(record)))
        lines += [f"  {name}: {why}{_where(given)}" for (name, why), given in sorted(reasons.items())]
    return lines


def method(record: RunRecord) -> str:
    """Return adapter and rank, as far as they are known."""
    if record.adapter is None:
        return record.choices.get("adapter", record.run_id)
    rank = "" if record.adapter.rank is None else f" r={record.adapter.rank}"
    return record.adapter.name + rank


def reason(record: RunRecord) -> str:
    """Return why a run has no result, in a line."""
    if record.failure is None:
        return record.reason or "no result yet"
    message = (record.failure.message.splitlines() or [""])[0]
    cut = message if len(message) <= MESSAGE_CHARACTERS else f"{message[:MESSAGE_CHARACTERS]}..."
    return f"{record.failure.kind} in {record.failure.phase}: {record.failure.type}: {cut}"


def _where(records: Sequence[RunRecord]) -> str:
    tasks = sorted({record.task.name if record.task else record.choices.get("task", "") for record in records} - {""})
    seeds = sorted({record.seed for record in records})
    return f" ({', '.join([*tasks, _seeds(seeds)])})"


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {_join(seeds)}"


def _join(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items)


def _distinct(values: Iterable[object]) -> str:
    return _join(sorted({str(value) for value in values}))


def _by_task(table: Table, text: Callable[[Run], str]) -> str:
    """Return one text for all tasks, or task by task where they differ."""
    texts = {table.short(task): text(runs[0]) for task, runs in group(table.runs, lambda run: run.task.name).items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return _join(f"{task} {value}" for task, value in sorted(texts.items()))


def _model(table: Table) -> str:
    model = table.runs[0].model
    revision = f" at revision {model.revision[:12]}" if model.revision else ""
    held = f", frozen weights in {model.quantization[0]} bits" if model.quantization else ""
    return f"Model: {model.name} ({model.id}{revision}), {model.dtype}{held}."


def _data(table: Table) -> str:
    task = table.runs[0].task
    capped = _join(_caps(table.runs[0])) or "all rows"
    rows = _by_task(table, _rows)
    return f"Data: {task.source}, protocol {task.protocol}, {capped}; training rows / scored rows: {rows}."


def _classes(table: Table) -> str:
    """Say which classes the data of own tasks have; empty where the tasks' settings fix them."""
    texts = {table.short(run.task.name): ", ".join(run.task.labels) for run in table.runs if run.task.labels}
    return " ".join(f"Classes of {task}: {classes}." for task, classes in sorted(texts.items()))


def _caps(run: Run) -> list[str]:
    caps = [(run.task.max_train_samples, "training"), (run.task.max_eval_samples, "scored")]
    return [f"at most {cap:,} {kind} rows per task" for cap, kind in caps if cap is not None]


def _rows(run: Run) -> str:
    return " / ".join(_used(run.task.splits.get(name)) for name in ("train", run.task.split_primary))


def _scored_rows(run: Run) -> str:
    return f"{run.score.n:,}"


def _used(split: Split | None) -> str:
    if split is None:
        return "unknown"
    read = split.read if split.read is not None else split.rows
    return f"{split.rows:,}" if read == split.rows else f"{split.rows:,} of {read:,}"


def _lost_rows(table: Table) -> str:
    """Say which rows were dropped without being asked for; empty where none was."""
    lost: dict[str, None] = {}
    for run in table.runs:
        for use, split in run.task.splits.items():
            if (count := split.count) is not None and count.lost_share > 0:
                lost[f"{table.short(run.task.name)}, {use}: {count}"] = None
    return f"Rows that could not be used: {'; '.join(lost)}." if lost else ""


def _noted_rows(table: Table) -> str:
    """Say of which rows something is missing although they are used; empty where of none."""
    noted: dict[str, None] = {}
    for run in table.runs:
        for use, split in run.task.splits.items():
            for reason, number in (split.noted or {}).items():
                noted[f"{table.short(run.task.name)}, {use}: {number:,}: {reason}"] = None
    return f"Of the rows used: {'; '.join(noted)}." if noted else ""


def _training(run: Run) -> str:
    steps = run.protocol.max_steps
    if steps is not None:
        return f"{steps:,} steps"
    if run.protocol.epochs is None:
        return "unknown length"
    return f"{run.protocol.epochs:g} epoch{'' if run.protocol.epochs == 1 else 's'}"


def _length(table: Table) -> str:
    order = table.runs[0].record.row_order
    return f"Training: {_by_task(table, _training)}{f'; {ORDERS[order]}' if order else ''}."


def _selection(table: Table) -> str:
    if table.runs[0].protocol.selection == "last":
        return "Selection: the weights after the last step are scored."
    optimistic = any(run.task.test_is_validation for run in table.runs)
    caveat = " The best epoch is selected on the reported rows, so all scores are optimistic." if optimistic else ""
    return f"Selection: the weights of the best epoch are scored.{caveat}"


def scores_sentence(table: Table) -> str:
    """Return which split the scores are of, over which seeds, and in which unit."""
    seeds = sorted({run.record.seed for run in table.runs})
    spread = "mean ± sample standard deviation over" if len(seeds) > 1 else "without a standard deviation: only"
    split = _by_task(table, lambda run: run.task.split_primary)
    standing_in = [run.task.name for run in table.runs if run.task.test_is_validation]
    private = any(name.startswith(PRIVATE_TESTS) for name in standing_in)
    why = "the labels of the test split are not public" if private else "the task has no test split"
    caveat = f" It replaces the test split, because {why}." if standing_in else ""
    unit = "metric x 100" if table.higher_is_better else "lower is better,"
    return f"Scores: {unit} on the {split} split, {spread} {_seeds(seeds)}.{caveat}"


def _base_scores(table: Table) -> str:
    """Return the scores of the backbone before an adapter is attached; empty for tasks that do not measure them."""
    texts_of: dict[str, set[str]] = {}
    for run in table.runs:
        scores = (run.record.metrics or {}).get(run.task.split_primary, {})
        base = scores.get(f"base_{run.task.metric_primary}")
        if base is not None and base.value is not None:
            text = f"{base.value * POINTS:.1f}" if table.higher_is_better else f"{base.value:.4f}"
            texts_of.setdefault(table.short(run.task.name), set()).add(text)
    listed = "; ".join(f"{task} {_distinct(values)}" for task, values in sorted(texts_of.items()))
    return f"Score of the backbone without an adapter: {listed}." if listed else ""


def _learning_rates(table: Table) -> str:
    adapters = group(table.runs, lambda run: run.adapter.name)
    rates = group(sorted(adapters), lambda name: _rates(adapters[name]))
    return f"Learning rates, adapter / head: {'; '.join(f'{_join(names)} {text}' for text, names in rates.items())}."


def _rates(runs: Sequence[Run]) -> str:
    pairs = {(run.adapter.learning_rate, run.adapter.head_learning_rate) for run in runs}
    texts = sorted(" / ".join("none" if rate is None else f"{rate:g}" for rate in pair) for pair in pairs)
    tuned = {run.protocol.tuned for run in runs}
    return f"{_join(texts)} ({'partly tuned' if len(tuned) > 1 else 'tuned' if tuned.pop() else 'not tuned'})"


def _code(table: Table) -> str:
    codes = [run.record.code for run in table.runs if run.record.code]
    commits = _distinct(code.git_sha[:12] for code in codes if code.git_sha)
    dirty = [code for code in codes if code.git_dirty]
    hashes = _distinct(code.diff_sha256[:12] for code in dirty if code.diff_sha256)
    of = f" (SHA-256 of the difference: {hashes})" if hashes else ""
    caveat = f" {len(dirty)} of {len(table.runs)} runs had uncommitted changes{of}." if dirty else ""
    unknown = sum(code.git_sha is None for code in codes)
    some = f" {unknown} of {len(table.runs)} runs are of no known commit." if commits and unknown else ""
    version = _distinct(code.package_version for code in codes)
    return f"Code: lorta {version}, commit {commits or 'unknown'}.{some}{caveat}"


def _timing(table: Table) -> str:
    environments = {run.record.env_fingerprint for run in table.runs}
    if len(environments) == 1:
        return "Training seconds: mean of one run over tasks and seeds, without evaluation."
    return f"Training seconds were measured in {len(environments)} different environments and cannot be compared."
