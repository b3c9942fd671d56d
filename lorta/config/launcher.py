"""Who does the runs: a command line's `hydra/launcher` and `hydra.launcher.*`, no part of their identity. No torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from lorta.config.overrides import Problems, Values
from lorta.config.settings import Positive, Settings, setting_problems
from lorta.config.suggestions import did_you_mean
from lorta.config.yaml_files import read_mapping

GROUP, PREFIX = "hydra/launcher", "hydra.launcher."
DEFAULT = "local"


class SlurmSettings(Settings):
    """`conf/hydra/launcher/slurm.yaml`: what is asked of Slurm for each run."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    timeout_min: Positive
    signal_delay_s: Annotated[int, Field(ge=1, le=65535)]  # sbatch's own limit
    cpus_per_task: Literal["auto"] | Positive
    mem_gb: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None
    gpus_per_node: Positive | None
    array_parallelism: Positive
    runs_per_task: Positive
    setup: list[str]
    additional_parameters: dict[str, Any]


def choose_launcher(values: Values, folder: Path, problems: Problems) -> SlurmSettings | None:
    """Take the launcher's keys out of `values`; return Slurm's settings, or None for this command's own processes."""
    asked = {key: values.pop(key) for key in list(values) if key == GROUP or key.startswith(PREFIX)}
    for key, values_of in asked.items():
        if len(values_of) > 1:
            problems.add(f"{key}={','.join(map(str, values_of))}: one value; all runs go the same way")
    own = {key.removeprefix(PREFIX): values_of[0] for key, values_of in asked.items() if key != GROUP}
    name = str(asked.get(GROUP, [DEFAULT])[0])
    options = sorted(file.stem for file in (folder / GROUP).glob("*.yaml"))
    if name not in options:
        problems.add(f"{GROUP}={name}: no such launcher{did_you_mean(name, options)}")
        return None
    known = read_mapping(folder / GROUP / f"{name}.yaml")
    for key in sorted(set(own) - set(known)):
        hint = did_you_mean(key, list(known)) if known else f"; {GROUP}={DEFAULT} has no settings"
        problems.add(f"{PREFIX}{key}: no such key{hint}")
    return _checked(known | {key: own[key] for key in own if key in known}, problems) if known else None


def _checked(values: dict[str, Any], problems: Problems) -> SlurmSettings | None:
    try:
        settings = SlurmSettings.model_validate(values)
        if settings.signal_delay_s + 60 >= settings.timeout_min * 60:  # sbatch(1): the signal may come a minute early
            delay = f"{PREFIX}signal_delay_s={settings.signal_delay_s}"
            problems.add(f"{delay}: must be more than a minute below timeout_min, {settings.timeout_min} minutes")
        return settings
    except ValidationError as error:
        for sentence in setting_problems(error):
            problems.add(f"{PREFIX}{sentence}")
        return None
