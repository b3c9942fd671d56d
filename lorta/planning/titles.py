"""The names of runs for people."""

from lorta.planning.spec import RunSpec


def title(spec: RunSpec) -> str:
    """Return a run's name for people: adapter, rank, task, seed."""
    adapter = spec.settings.adapter
    rank = f" r={adapter['rank']}" if adapter.get("rank") is not None else ""
    return f"{adapter['name']}{rank} {task_title(spec)} seed {spec.settings.seed}"


def task_title(spec: RunSpec) -> str:
    """Return the task's name, and of a trial the rate that it tries."""
    trainer, held_out = spec.settings.trainer, spec.settings.data.holdout
    rate = trainer.head_learning_rate if trainer.learning_rate is None else trainer.learning_rate
    return f"{spec.settings.task['name']}{f' trial {rate:g}' if isinstance(held_out, int) else ''}"
