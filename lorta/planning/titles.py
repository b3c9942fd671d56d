"""The names of runs for people."""

from collections.abc import Collection, Mapping, Sequence

from lorta.planning.spec import RunSpec, separate_seeds

IN_TITLE = ("adapter", "rank", "task", "seed", "budget", "experiment", "data.max_eval_samples", "data.holdout")


def title(spec: RunSpec) -> str:
    """Return a run's name for people: adapter, rank, task, seed."""
    adapter = spec.settings.adapter
    rank = f" r={adapter['rank']}" if adapter.get("rank") is not None else ""
    return f"{adapter['name']}{rank} {task_title(spec)} seed {spec.settings.seed}{_separate(spec)}"


def titles(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Return the name of each run of a sweep, by id, with the swept values that a name alone does not hold."""
    swept = swept_values(specs)
    return {spec.run_id: title(spec) + (f" {values}" if (values := swept[spec.run_id]) else "") for spec in specs}


def swept_values(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Return, by id, the settings that differ between runs and are no part of their titles, such as two rates."""
    trials = {spec.run_id for spec in specs if spec.settings.data.scores_training_rows}
    return differing_values({spec.run_id: typed_values(spec.overrides) for spec in specs}, trials)


def typed_values(words: Sequence[str]) -> dict[str, str]:
    """Return key -> value of the words of a command line."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def differing_values(typed: Mapping[str, Mapping[str, str]], left_out: Collection[str] = ()) -> dict[str, str]:
    """Return, by id, the typed settings that are no part of titles and differ between runs that are not left out."""
    values_of: dict[str, set[str | None]] = {}
    for key in dict.fromkeys(key for words in typed.values() for key in words if key not in IN_TITLE):
        values_of[key] = {words.get(key) for run_id, words in typed.items() if run_id not in left_out}
    differing = [key for key, values in values_of.items() if len(values) > 1]
    return {
        run_id: " ".join(f"{key.rpartition('.')[2]}={words[key]}" for key in differing if key in words)
        for run_id, words in typed.items()
    }


def _separate(spec: RunSpec) -> str:
    seeds = [f"{name.removesuffix('_seed')} {seed}" for name, seed in separate_seeds(spec.settings).items()]
    return f" ({', '.join(seeds)})" if seeds else ""


def task_title(spec: RunSpec) -> str:
    """Return the task's name, and of a trial the rate that it tries."""
    trainer, held_out = spec.settings.trainer, spec.settings.data.holdout
    rate = trainer.head_learning_rate if trainer.learning_rate is None else trainer.learning_rate
    return f"{spec.settings.task['name']}{f' trial {rate:g}' if isinstance(held_out, int) else ''}"
